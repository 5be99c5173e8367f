"""The HTML page about a compilation: its stages, its kernels and what was decided about them."""
