"""Causal grouped-query attention with an optional sliding window and logit soft cap."""

import numpy as np

from nybble.dialects.numpy_ref.arrays import F32, KvArray


def attention(
    q: F32,
    k_cache: KvArray,
    v_cache: KvArray,
    pos: int,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> F32:
    """Attend with q [n, q_heads * d] to caches [kv_heads, context, d], computed in f64.

    Row i stands at position p = pos + i and sees keys j <= p and, with a window, j > p - window.
    Query head h reads key head h // (q_heads / kv_heads). Logits are `scale * q.k`, then
    `softcap * tanh(logit / softcap)` if a cap is given. Returns f32 [n, q_heads * d].
    """
    rows, width = q.shape
    kv_heads, _, head_dim = k_cache.shape
    group = width // head_dim // kv_heads
    keys = pos + rows
    wide = q.astype(np.float64).reshape(rows, kv_heads, group, head_dim)
    seen_keys = k_cache[:, None, :keys].astype(np.float64)
    logits = scale * (wide.transpose(1, 2, 0, 3) @ seen_keys.swapaxes(2, 3))
    if softcap is not None:
        logits = softcap * np.tanh(logits / softcap)
    logits = np.where(visible(rows, pos, window), logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    out = weights @ v_cache[:, None, :keys].astype(np.float64)
    return out.transpose(2, 0, 1, 3).reshape(rows, width).astype(np.float32)


def visible(
    rows: int, pos: int, window: int | None
) -> np.ndarray[tuple[int, int], np.dtype[np.bool]]:
    """Return bool [rows, pos + rows]: which keys each row may see."""
    position = pos + np.arange(rows)[:, None]
    key = np.arange(pos + rows)[None, :]
    seen = key <= position
    if window is not None:
        seen &= key > position - window
    return seen
