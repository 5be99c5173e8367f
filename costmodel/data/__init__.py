"""Measurements of scheduled kernels: what one is, the log that keeps them, and datasets of them."""
