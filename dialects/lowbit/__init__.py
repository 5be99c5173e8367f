"""The lowbit dialect: number formats and the tensors that carry them."""
