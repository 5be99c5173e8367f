"""Differential checks of generated kernels against the numpy references of their operators."""
