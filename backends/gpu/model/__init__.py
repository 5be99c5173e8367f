"""Whole models on a GPU: launches of kernels on named buffers, one token at a time."""
