"""Attention over a key-value cache on GPUs: decode in splits, merge, prefill."""
