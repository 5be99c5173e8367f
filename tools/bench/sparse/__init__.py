"""`nybble bench spgemm`: products of sparse matrices beside the sparse libraries."""
