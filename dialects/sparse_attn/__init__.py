"""The sparse_attn dialect: attention over a key-value cache, with a mask algebra."""
