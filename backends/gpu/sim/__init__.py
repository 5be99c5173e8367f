"""A simulator of PTX on numpy: runs a kernel without a GPU, checks its accesses and counts them."""
