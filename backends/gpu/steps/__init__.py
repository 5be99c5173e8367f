"""Functions at the scheduled stage as launches: which kernel computes what, from which values."""
