"""Grouped-query attention of queries over a cache, under a mask, with an optional soft cap."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nybble.dialects.numpy_ref.arrays import F32, KvArray

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def attention(
    q: F32,
    k_cache: KvArray,
    v_cache: KvArray,
    pos: int,
    *,
    scale: float,
    seen: Bools | None = None,
    softcap: float | None = None,
) -> F32:
    """Attend with q [n, q_heads * d] to caches [kv_heads, context, d], computed in f64.

    Row i stands at position pos + i. seen: bool [kv_heads or 1, n, pos + n], which of the first
    keys it sees, None for all up to its own. Query head h reads key head h // (q_heads / kv_heads).
    Logits are `scale * q.k`, then `softcap * tanh(logit / softcap)` if a cap is given. Returns f32
    [n, q_heads * d]; a row that sees no key is 0.
    """
    _, total, out = partial(q, k_cache, v_cache, pos, scale=scale, seen=seen, softcap=softcap)
    whole = np.where(total == 0, 1.0, total)
    return (out / whole[..., None]).reshape(q.shape).astype(np.float32)


def partial(
    q: F32,
    k_cache: KvArray,
    v_cache: KvArray,
    pos: int,
    *,
    scale: float,
    seen: Bools | None = None,
    softcap: float | None = None,
    scores: F64 | None = None,
    weighted: Callable[[F64], F64] | None = None,
) -> tuple[F64, F64, F64]:
    """What `attention` is the quotient of, see there for the arguments: (max, sum, acc) in f64.

    scores: `scale * q.k` of the first keys, [kv_heads, group, n, keys], where they are known.
    weighted: from weights like them to their sum of values [kv_heads, group, n, d], likewise.

    max [n, q_heads]: the largest logit, -inf where no key is seen; sum [n, q_heads]: of
    exp(logit - max); acc [n, q_heads, d]: the sum of exp(logit - max) times the value.
    """
    rows, width = q.shape
    kv_heads, _, head_dim = k_cache.shape
    group = width // head_dim // kv_heads
    keys = pos + rows
    seen = causal(rows, pos) if seen is None else seen
    wide = q.astype(np.float64).reshape(rows, kv_heads, group, head_dim)
    seen_keys = k_cache[:, None, :keys].astype(np.float64)
    logits = scale * (wide.transpose(1, 2, 0, 3) @ seen_keys.swapaxes(2, 3))
    if scores is not None:
        logits[..., : scores.shape[-1]] = scores
    if softcap is not None:
        logits = softcap * np.tanh(logits / softcap)
    logits = np.where(seen[:, None], logits, -np.inf)
    largest = logits.max(axis=-1, initial=-np.inf)
    centre = np.where(largest == -np.inf, 0.0, largest)
    weights = np.where(seen[:, None], np.exp(logits - centre[..., None]), 0.0)
    # A value that nobody sees may be anything, and 0 * NaN would not be 0.
    used = np.any(seen, axis=1, keepdims=True).swapaxes(1, 2)
    values = np.where(used, v_cache[:, :keys].astype(np.float64), 0.0)
    acc = weights @ values[:, None] if weighted is None else weighted(weights)
    order = (2, 0, 1)
    heads = (rows, kv_heads * group)
    return (
        largest.transpose(order).reshape(heads),
        weights.sum(axis=-1).transpose(order).reshape(heads),
        acc.transpose(*order, 3).reshape(*heads, head_dim),
    )


def causal(rows: int, pos: int) -> Bools:
    """Every key up to the row's own: bool [1, rows, pos + rows]."""
    return (np.arange(pos + rows) <= pos + np.arange(rows)[:, None])[None]
