"""Measuring scheduled kernels, and what the verbs `cost` and `tune` do with the measurements."""
