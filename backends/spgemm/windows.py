"""Windows of a product: parts of the result that fit an accumulator, from what bounds their size.

A row of the result has at most as many entries as it takes products, and as it has columns. Sums of
these bounds over rows say which rows share a window; a row that is too long by itself is cut into
ranges of columns, and walked once for each.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nybble.dialects.numpy_ref.sparse import check_mask
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.schedule import Schedule

MOST_OVERFULL = 64.0

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """rows: i64 [n, 4]: first row, last row + 1, first column, last column + 1 of each window.

    capacity: entries that the result needs room for, spilled products included.
    """

    rows: Counts
    capacity: int


def products_of_rows(lhs: SparseMatrix, rhs: SparseMatrix) -> Counts:
    """How many products each row of the result takes; SparseError where the shapes do not fit."""
    if lhs.shape[1] != rhs.shape[0]:
        raise SparseError(
            f"{lhs.shape[0]} x {lhs.shape[1]} times {rhs.shape[0]} x {rhs.shape[1]}",
            accepted="as many columns on the left as rows on the right",
        )
    lengths = np.diff(rhs.indptr).astype(np.int64)
    sums = np.concatenate(([0], np.cumsum(lengths[lhs.indices])))
    return sums[lhs.indptr[1:]] - sums[lhs.indptr[:-1]]


@dataclass(frozen=True)
class Filling:
    """How full accumulators may get. Raises SparseError for what is no share.

    load: the share of a table's slots that the bounds may fill; more than 1 risks full tables,
    whose products are then spilled. entries: of a hart's fragment; a row with more is written in
    parts.
    """

    load: float = 0.5
    entries: int = 1024

    def __post_init__(self) -> None:
        if not 0 < self.load <= MOST_OVERFULL:
            raise SparseError(
                f"a table filled to {self.load}", accepted=f"more than 0, to {MOST_OVERFULL}"
            )
        if not 0 < self.entries < 1 << 16:
            raise SparseError(f"fragments of {self.entries} entries", accepted="1 to 65535")


def plan(
    lhs: SparseMatrix,
    rhs: SparseMatrix,
    how: Schedule,
    filling: Filling | None = None,
    mask: SparseMatrix | None = None,
) -> Windows:
    """The windows of a product under a schedule; mask: of one that is "masked"."""
    filling = filling or Filling()
    rows, columns = lhs.shape[0], rhs.shape[1]
    products = products_of_rows(lhs, rhs)
    bounds = np.minimum(products, columns)
    if mask is not None:
        check_mask(mask.check(), (rows, columns))
        bounds = np.diff(mask.indptr).astype(np.int64)
    if how.accumulator in ("fragments", "masked"):
        made = [(0, rows, at, min(columns, at + how.slots)) for at in range(0, columns, how.slots)]
        certain = (bounds <= filling.entries) | (mask is not None)
    elif how.accumulator == "dense":
        made = [*_windows(np.full(rows, padded(columns)), how.slots, columns)]
        certain = np.ones(rows, np.bool_)
    else:
        made = [*_windows(bounds, max(1, int(filling.load * how.slots)), columns)]
        certain = np.full(rows, filling.load <= 1)
    capacity = int(np.where(certain, bounds, products).sum())
    return Windows(np.array(made, np.int64).reshape(-1, 4), capacity)


def padded(columns: int) -> int:
    """Places that a row of a dense accumulator takes: whole words of 8."""
    return -(-columns // 8) * 8


def _windows(bounds: Counts, limit: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
    ends = np.cumsum(bounds)
    rows = len(bounds)
    row = 0
    while row < rows:
        before = int(ends[row - 1]) if row else 0
        end = int(np.searchsorted(ends, before + limit, "right"))
        if end > row:
            yield row, end, 0, columns
            row = end
            continue
        for column in range(0, columns, limit):
            yield row, row + 1, column, min(columns, column + limit)
        row += 1
