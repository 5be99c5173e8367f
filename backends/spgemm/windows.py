"""Windows of a product: parts of the result that fit an accumulator, from what bounds their size.

A row of the result has at most as many entries as it takes products, and as it has columns. Sums of
these bounds over rows say which rows share a window; a row that is too long by itself is cut into
ranges of columns, and walked once for each.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.schedule import Schedule

LOAD = 0.5
"""The share of a hash table's slots that a window may fill."""
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
    """How many products each row of the result takes."""
    lengths = np.diff(rhs.indptr).astype(np.int64)
    sums = np.concatenate(([0], np.cumsum(lengths[lhs.indices])))
    return sums[lhs.indptr[1:]] - sums[lhs.indptr[:-1]]


def plan(lhs: SparseMatrix, rhs: SparseMatrix, how: Schedule, load: float = LOAD) -> Windows:
    """The windows of a product under a schedule.

    load: the share of slots that may be filled by the bounds; more than 1 risks full tables, whose
    products are then spilled. Raises SparseError for one that is no share.
    """
    if not 0 < load <= MOST_OVERFULL:
        raise SparseError(f"a table filled to {load}", accepted=f"more than 0, to {MOST_OVERFULL}")
    columns = rhs.shape[1]
    products = products_of_rows(lhs, rhs)
    if how.accumulator == "dense":
        bounds, limit = np.full(len(products), columns), how.slots
    else:
        bounds, limit = np.minimum(products, columns), max(1, int(load * how.slots))
    made = np.array([*_windows(bounds, limit, columns)], np.int64).reshape(-1, 4)
    certain = how.accumulator == "dense" or load <= 1
    return Windows(made, int(np.minimum(products, columns).sum() if certain else products.sum()))


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
