"""RMSNorm of rows and of heads (Zhang and Sennrich 2019, arXiv:1910.07467)."""

import numpy as np

from nybble.dialects.numpy_ref.arrays import F32


def rms_norm(x: F32, weight: F32, eps: float, *, offset: bool = False) -> F32:
    """Return `x / sqrt(mean(x^2) + eps) * w` for rows of x [n, k] and weight [k], computed in f64.

    `offset` multiplies by `1 + weight` (gemma stores the weight minus one).
    """
    wide = x.astype(np.float64)
    inverse = 1.0 / np.sqrt(np.mean(wide * wide, axis=-1, keepdims=True) + eps)
    scale = weight.astype(np.float64) + (1.0 if offset else 0.0)
    return (wide * inverse * scale).astype(np.float32)


def head_rms_norm(x: F32, weight: F32, eps: float, *, offset: bool = False) -> F32:
    """Normalise every head of x [n, heads * d] on its own with weight [d]; returns x's shape."""
    rows, width = x.shape
    heads = x.reshape(rows * (width // weight.size), weight.size)
    return rms_norm(heads, weight, eps, offset=offset).reshape(rows, width)
