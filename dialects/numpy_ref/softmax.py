"""The softmax of rows, and three ways to the mean of values under it in f32, as kernels go them.

The three give `sum(exp(s) v) / sum(exp(s))`, 0 where every logit is -inf. They differ in what is
kept while blocks of keys pass by: `online` corrects by a running maximum (FlashAttention,
arXiv:2205.14135), `two_pass` finds the maximum first, `unified` takes a fixed number for it and
starts again, online, where that was too small or too large (FlashDecoding++, arXiv:2311.01282).
"""

import numpy as np
import numpy.typing as npt

from nybble.dialects.numpy_ref.arrays import F32

UNIFIED_RANGE = 80.0
"""How far a largest logit may be from the fixed number: exp(80) is in f32, times 2**12 keys too."""


def of_rows(values: F32) -> F32:
    """The softmax of each row [n, F], in f64 and rounded once; NaN for a row without a maximum."""
    wide = values.astype(np.float64)
    with np.errstate(all="ignore"):
        raised = np.exp(wide - wide.max(axis=1, keepdims=True))
        return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)


def online(logits: F32, values: F32, block: int) -> F32:
    """logits [n, keys], values [keys, d], `block` keys at a time; f32 [n, d]."""
    rows, keys = logits.shape
    largest = np.full(rows, -np.inf, np.float32)
    total = np.zeros(rows, np.float32)
    acc = np.zeros((rows, values.shape[1]), np.float32)
    for first in range(0, keys, block):
        some = logits[:, first : first + block]
        new = np.maximum(largest, some.max(axis=1))
        weights = _exp(some, new)
        alpha = _exp(largest[:, None], new)[:, 0]
        total = alpha * total + weights.sum(axis=1, dtype=np.float32)
        acc = np.asarray(alpha[:, None] * acc + weights @ values[first : first + block], np.float32)
        largest = new
    return _quotient(acc, total)


def two_pass(logits: F32, values: F32) -> F32:
    """logits [n, keys], values [keys, d]; f32 [n, d]."""
    weights = _exp(logits, logits.max(axis=1, initial=-np.inf))
    return _quotient(
        np.asarray(weights @ values, np.float32), weights.sum(axis=1, dtype=np.float32)
    )


def unified(
    logits: F32, values: F32, block: int, centre: float = 0.0
) -> tuple[F32, npt.NDArray[np.bool_]]:
    """As `online`, around `centre`; and which rows had to be done again: bool [n]."""
    largest = logits.max(axis=1, initial=-np.inf)
    again = ~(np.abs(largest - np.float32(centre)) <= UNIFIED_RANGE)
    kept = np.where(again[:, None], -np.inf, logits)
    weights = _exp(kept, np.full(len(logits), centre, np.float32))
    result = _quotient(
        np.asarray(weights @ values, np.float32), weights.sum(axis=1, dtype=np.float32)
    )
    result[again] = online(logits[again], values, block)
    return result, again


def _exp(logits: F32, largest: F32) -> F32:
    """exp(logits - largest), 0 for a logit of -inf."""
    centre = np.where(largest == -np.inf, np.float32(0), largest)
    return np.exp(logits - centre[:, None], dtype=np.float32)


def _quotient(acc: F32, total: F32) -> F32:
    whole = np.where(total == 0, 1, total).astype(np.float32)
    return (acc / whole[:, None]).astype(np.float32)
