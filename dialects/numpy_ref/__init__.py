"""Numpy references of the operators beside matmul: what every kernel is tested against."""
