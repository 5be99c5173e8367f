"""The fused dialect: memory-bound operators, and the region that makes operators one launch."""
