"""bf16 in 12 bits: the low byte, and an index into a table of 16 high bytes.

The high byte of a bf16, its sign and seven bits of its exponent, takes few values among the weights
of a layer. A weight whose high byte is in no entry of the table is left over: it is +0 here, and
whoever holds a matrix so keeps its value beside.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.arrays import U8

ENTRIES = 16


@dataclass(frozen=True, eq=False)
class HighBytes:
    """Some rows. table: u8 [16], the first 0. low, index: u8 [rows, cols]; left: bool."""

    table: U8
    low: U8
    index: U8
    left: npt.NDArray[np.bool_]


def split(halves: npt.NDArray[np.uint16]) -> HighBytes:
    """Rows u16 [rows, cols] of bf16 patterns, with a table of their own."""
    high, low = (halves >> 8).astype(np.uint8), halves.astype(np.uint8)
    table = _commonest(high)
    index = np.zeros(256, np.uint8)
    index[table[::-1]] = np.arange(len(table))[::-1]
    code = index[high]
    left = table[code] != high
    low[left] = 0
    return HighBytes(table, low, code, left)


def _commonest(high: U8) -> U8:
    """The byte 0, then the 15 others that occur most, u8 [16]."""
    counts = np.bincount(high.reshape(-1), minlength=256)
    counts[0] = 0
    found = np.argsort(-counts, kind="stable")[: ENTRIES - 1]
    return np.concatenate([[0], found]).astype(np.uint8)
