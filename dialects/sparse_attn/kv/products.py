"""What attention makes of codes that are multiplied as integers of 8 bits.

With keys `s c + z` the queries times s are rounded to integers x of a step t, for each query head
and group of tokens, and the middle h of the codes is taken out before the rounding counts:

    q . k = t sum(x[d] (c[d] - h)) + sum(q[d] (z[d] + h s[d]))
    x = round(q s / t),  t = max|q s| / 127

So are weights p times the scales of values, for each query row, block of keys and group of
components. Rounding by blocks is that of SageAttention (arXiv:2410.02367) and INT-FlashAttention
(arXiv:2409.16997), after the scales instead of before them. Of queries all floats are f32 up to x,
so that whoever follows the same steps gets the same x; of weights some may be rounded otherwise.
"""

import numpy as np
import numpy.typing as npt

from nybble.dialects.numpy_ref.arrays import KvArray
from nybble.dialects.sparse_attn.kv.format import KEYS, VALUES, KvFormat

LARGEST = 127
SMALLEST = 2.0**-100
"""Numbers whose largest magnitude is no larger have integers of 0."""
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
    codes, scale, zero = _codes(kv, KEYS, keys, tokens)
    shape = (heads, 1, 1, tokens // kv.key_group, dim)
    scale, zero = scale.reshape(shape), zero.reshape(shape)
    wide = (query * np.float32(factor)).reshape(len(query), heads, -1, dim).transpose(1, 2, 0, 3)
    wide = wide[:, :, :, None]
    x, step = integers(wide * scale)
    beside = codes.reshape(heads, tokens // kv.key_group, kv.key_group, dim) - middle(kv)
    found = np.einsum("hrngd,hgtd->hrngt", x.astype(np.float64), beside) * step
    rest = (wide.astype(np.float64) * (zero + middle(kv) * scale.astype(np.float64))).sum(axis=-1)
    return (found + rest[..., None]).reshape(*found.shape[:3], tokens)


def weighted(kv: KvFormat, weights: F64, values: KvArray, tokens: int, block: int) -> F64:
    """f64 [kv_heads, group, n, d]: the sum of weights [kv_heads, group, n, >= tokens] times values.

    values: [kv_heads, context, d] before they became codes; block: keys that share a step.
    """
    heads, _, dim = values.shape
    codes, scale, zero = _codes(kv, VALUES, values, tokens)
    blocks, groups = tokens // block, dim // kv.value_group(dim)
    beside = codes.reshape(heads, blocks, block, groups, -1) - middle(kv)
    scale, zero = (
        one.reshape(heads, 1, 1, blocks, block, groups).swapaxes(-1, -2) for one in (scale, zero)
    )
    wide = weights[..., :tokens].reshape(*weights.shape[:3], blocks, 1, block)
    x, step = integers(wide.astype(np.float32) * scale)
    found = np.einsum("hrnbgt,hbtgd->hrnbgd", x.astype(np.float64), beside) * step
    rest = (wide * (zero + middle(kv) * scale.astype(np.float64))).sum(axis=-1)
    return (found + rest[..., None]).sum(axis=3).reshape(*weights.shape[:3], dim)


def middle(kv: KvFormat) -> float:
    """The middle of the codes of a format."""
    return (2**kv.bits - 1) / 2


def _codes(kv: KvFormat, side: str, cache: KvArray, tokens: int) -> tuple[F32, F32, F32]:
    """Codes, scales and minima of the first tokens of [heads, context, d]."""
    rows = np.ascontiguousarray(cache[:, :tokens], np.float32).reshape(-1, cache.shape[2])
    coded = kv.coded(side, rows)
    assert coded.zero is not None
    return coded.require_codes().astype(np.float32), coded.scale, coded.zero
