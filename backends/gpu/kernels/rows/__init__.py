"""Kernels of the operators between products: a block of threads, or a few, for each row."""
