"""The mpgemm dialect: matrix products of low-bit weights with higher-precision activations."""
