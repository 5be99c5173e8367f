"""Rotary position embedding in the half-split style, and the append to the KV cache."""

import numpy as np

from nybble.dialects.numpy_ref.arrays import F32, KvArray


def rope_tables(
    context: int, head_dim: int, theta: float = 10000.0, scaling: float = 1.0
) -> tuple[F32, F32]:
    """Return cos and sin, each f32 [context, head_dim / 2], positions divided by `scaling`."""
    frequency = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    angle = np.outer(np.arange(context, dtype=np.float64) / scaling, frequency)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rope(x: F32, cos: F32, sin: F32, pos: int) -> F32:
    """Rotate every head of x [n, heads * d] by its row's position `pos + row`.

    cos and sin are [context, d / 2]; the first half of a head is `x1`, the second `x2`:
    `(x1 cos - x2 sin, x2 cos + x1 sin)` (Su et al. 2021, arXiv:2104.09864, NeoX layout).
    Raises ValueError if the last position is outside the tables.
    """
    rows, width = x.shape
    half = cos.shape[1]
    if pos + rows > cos.shape[0]:
        raise ValueError(f"position {pos + rows - 1} is outside a context of {cos.shape[0]}")
    heads = x.astype(np.float64).reshape(rows, width // (2 * half), 2 * half)
    first, second = heads[..., :half], heads[..., half:]
    turn_cos = cos[pos : pos + rows, None, :].astype(np.float64)
    turn_sin = sin[pos : pos + rows, None, :].astype(np.float64)
    turned = np.concatenate(
        [first * turn_cos - second * turn_sin, second * turn_cos + first * turn_sin], axis=-1
    )
    return turned.reshape(rows, width).astype(np.float32)


def append_kv(cache: KvArray, rows: F32, pos: int) -> KvArray:
    """Return a copy of cache [heads, context, d] with rows [n, heads * d] written at pos..pos+n-1.

    Values are rounded to the cache's type. Raises ValueError if the rows do not fit.
    """
    heads, context, head_dim = cache.shape
    count = rows.shape[0]
    if pos + count > context:
        raise ValueError(f"{count} rows at position {pos} do not fit a context of {context}")
    out = cache.copy()
    by_head = rows.reshape(count, heads, head_dim).transpose(1, 0, 2)
    out[:, pos : pos + count, :] = by_head.astype(cache.dtype)
    return out
