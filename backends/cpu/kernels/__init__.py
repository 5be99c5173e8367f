"""Kernels: from a frozen spec to a function in upstream dialects."""
