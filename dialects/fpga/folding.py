"""Sums and maxima of runs of words, in the one order that a pipelined loop can take them in.

An f32 adder takes some cycles, so that a sum that is carried from word to word could not take one
in each. Words are dealt out to RING partial results in turn; at the end of a run a tree joins them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
RING = 16
"""Partial results: as many cycles as an operator on f32 may take."""


def larger(left: Any, right: Any) -> Any:
    """The larger of two, the left one where they cannot be compared."""
    return np.where(left < right, right, left)


JOINS: dict[str, tuple[Callable[[Any, Any], Any], float]] = {
    "sum": (np.add, 0.0),
    "max": (larger, -np.inf),
}
"""Kind of a fold -> how two partial results are joined, and what changes nothing."""


def tree(values: F32, kind: str = "sum") -> F32:
    """Join [.., n] to [..], n a power of two: the first half with the second, again and again."""
    join = JOINS[kind][0]
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        values = join(values[..., :half], values[..., half:])
    return values[..., 0]


def fold(values: F32, kind: str = "sum") -> F32:
    """Join [.., n] to [..] as the hardware does: RING partial results, then a tree of them."""
    join, neutral = JOINS[kind]
    count = values.shape[-1]
    ring = np.full((*values.shape[:-1], RING), neutral, np.float32)
    ring[..., : min(count, RING)] = values[..., :RING]
    for first in range(RING, count, RING):
        some = values[..., first : first + RING]
        ring[..., : some.shape[-1]] = join(ring[..., : some.shape[-1]], some)
    return tree(ring, kind)
