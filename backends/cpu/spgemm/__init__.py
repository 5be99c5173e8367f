"""Sparse products on the CPU: generated kernels, what chooses among them, and their host side."""
