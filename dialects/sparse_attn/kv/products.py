"""Scores of queries with codes that are multiplied as integers.

With keys `s c + z` the queries times s are rounded to 8 bits, with one step t for each query head
and group of tokens, and the middle of the codes is taken out before the rounding counts:

    q . k = t sum(x[d] (c[d] - h)) + sum(q[d] (z[d] + h s[d]))
    x = round(q s / t),  t = max|q s| / 127

per-block rounding of queries as in SageAttention (arXiv:2410.02367), after the scales instead of
before them. Floats are f32 up to x, so that whoever follows the same steps gets the same x.
"""

import numpy as np
import numpy.typing as npt

from nybble.dialects.numpy_ref.arrays import KvArray
from nybble.dialects.sparse_attn.kv.format import KEYS, KvFormat

LARGEST = 127
SMALLEST = 2.0**-100
"""A group of queries whose largest magnitude is no larger has integers of 0."""
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


def integers(scaled: F32) -> tuple[F32, F32]:
    """x and t of the last axis of f32 [.., d]: f32 [.., d] and [.., 1]."""
    most = np.abs(scaled).max(axis=-1, keepdims=True)
    counts = np.zeros_like(most)
    np.divide(np.float32(LARGEST), most, out=counts, where=most > SMALLEST)
    return np.rint(scaled * counts), most / np.float32(LARGEST)


def scores(kv: KvFormat, query: F32, keys: KvArray, tokens: int, factor: float) -> F64:
    """f64 [kv_heads, group, n, tokens]: factor * q . k of f32 [n, heads * d] queries.

    keys: [kv_heads, context, d] before they became codes; tokens: of whole pages. Queries are
    multiplied by `factor` before they are rounded.
    """
    heads, _, dim = keys.shape
    rows = np.ascontiguousarray(keys[:, :tokens], np.float32).reshape(-1, dim)
    coded, group = kv.coded(KEYS, rows), kv.key_group
    assert coded.zero is not None
    codes = coded.require_codes().reshape(heads, tokens // group, group, dim)
    scale, zero = (
        np.asarray(one, np.float32).reshape(heads, 1, 1, tokens // group, dim)
        for one in (coded.scale, coded.zero)
    )
    wide = (query * np.float32(factor)).reshape(len(query), heads, -1, dim).transpose(1, 2, 0, 3)
    wide = wide[:, :, :, None]
    x, step = integers(wide * scale)
    middle = (2**kv.bits - 1) / 2
    found = np.einsum("hrngd,hgtd->hrngt", x.astype(np.float64), codes - middle) * step
    rest = (wide.astype(np.float64) * (zero + middle * scale.astype(np.float64))).sum(axis=-1)
    return (found + rest[..., None]).reshape(*found.shape[:3], tokens)
