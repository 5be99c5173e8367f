"""Lookup tables of an activation, and products of bit planes with them (T-MAC, arXiv 2407.00088).

Entry i of the table of columns `4t .. 4t + 3` is what those columns add to a row whose four bits
are i: the sum of the integers at set bits or, in a symmetric table (LUT Tensor Core, arXiv
2408.06003), that sum less the integers at clear bits. Then entry `15 - i` is the negative of entry
i, and 8 of the 16 are kept.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.numeric import round_to
from nybble.dialects.numpy_ref.arrays import F32, I32

WIDTH = 4
"""Columns of a table: 16 entries are what the byte shuffles of CPUs hold."""
LARGEST_ENTRY = 127

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]


class Tables(NamedTuple):
    """Tables of n rows of k columns.

    entries: i32 (f64 of floats) [n, k / 4, 16], or 8 where symmetric. unit: f32 [n, groups], what
    one step of an entry is worth in integers of the activation; 1 in exact tables. scale f32 and
    sums i32 (f64) [n, groups]: those of the activation.
    """

    entries: npt.NDArray[np.int32 | np.float64]
    unit: F32
    scale: F32
    sums: npt.NDArray[np.int32 | np.float64]

    @property
    def symmetric(self) -> bool:
        """Whether the negatives of the entries are left out."""
        return self.entries.shape[2] == 2 ** (WIDTH - 1)

    def all_entries(self) -> npt.NDArray[np.int32 | np.float64]:
        """[n, k / 4, 16]."""
        if not self.symmetric:
            return self.entries
        return np.concatenate([self.entries, -self.entries[:, :, ::-1]], axis=2)


def signs(symmetric: bool) -> I32:
    """What entry i takes of each column, i32 [16 or 8, 4]: its bits, as 0, 1 or as -1, 1."""
    count = 2 ** (WIDTH - 1) if symmetric else 2**WIDTH
    bits = (np.arange(count)[:, None] >> np.arange(WIDTH)) & 1
    return (2 * bits - 1 if symmetric else bits).astype(np.int32)


def build_tables(integers: I32, scale: F32, *, symmetric: bool, exact: bool) -> Tables:
    """Tables of integers i32 [n, k] in -127 .. 127 with scales f32 [n, groups].

    exact: keep the entries' integers, of magnitude 508 at most; else round them to int8, in steps
    of a 127th of the largest of a group (ties to even).
    """
    rows, groups = scale.shape
    entries = integers.reshape(rows, -1, WIDTH) @ signs(symmetric).T
    sums = integers.reshape(rows, groups, -1).sum(axis=2, dtype=np.int32)
    unit = np.ones((rows, groups), np.float32)
    if not exact:
        grouped = entries.reshape(rows, groups, -1).astype(np.float32)
        largest = np.abs(grouped).max(axis=2, initial=0)
        steps = LARGEST_ENTRY / np.maximum(largest, np.float32(1))
        unit = largest / np.float32(LARGEST_ENTRY)
        entries = np.rint(grouped * steps[:, :, None]).astype(np.int32).reshape(entries.shape)
    return Tables(entries, unit, scale, sums)


def float_tables(x: F32, entry: str, *, symmetric: bool) -> Tables:
    """Tables of f32 [n, k], each entry rounded to a type of floats. Every table is a group."""
    columns = x.astype(np.float64).reshape(len(x), -1, WIDTH)
    exact = (columns @ signs(symmetric).T).astype(np.float32)
    entries = round_to(entry, exact).astype(np.float64)
    ones = np.ones(entries.shape[:2], np.float32)
    sums = -entries[:, :, 0] if symmetric else entries[:, :, -1]
    return Tables(entries, ones, ones, sums)


def plane_indices(codes: U8, plane: int) -> npt.NDArray[np.intp]:
    """Which entry each four columns look up, [rows, k / 4]: bit j is that of column j."""
    bits = ((codes >> plane) & 1).reshape(len(codes), -1, WIDTH).astype(np.intp)
    return bits @ (1 << np.arange(WIDTH))


def code_sums(tables: Tables, codes: U8, bits: int) -> F64:
    """f64 [n, rows, groups]: sums of code * integer, out of one look-up per plane and 4 columns."""
    rows, groups = tables.scale.shape
    entries = tables.all_entries()
    total = np.zeros((rows, len(codes), groups))
    places = np.arange(entries.shape[1])
    for plane in range(bits):
        found = entries[:, places, plane_indices(codes, plane)]
        total += 2.0**plane * found.reshape(rows, len(codes), groups, -1).sum(axis=3)
    total *= tables.unit[:, None, :].astype(np.float64)
    if tables.symmetric:
        total = (total + (2**bits - 1) * tables.sums[:, None, :]) / 2
    return total
