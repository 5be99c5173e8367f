"""The spgemm dialect: sparse matrices in many layouts, and products of them over semirings."""
