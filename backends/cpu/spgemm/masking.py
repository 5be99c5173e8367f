"""Products where a mask has entries, or has none, on the host.

At the places of a mask the work follows the mask: see `masked.py`. At the others, all products are
taken and those at the mask's places are dropped.
"""

from dataclasses import dataclass

import numpy as np

from nybble.backends.cpu.spgemm.frame import PAD
from nybble.backends.cpu.spgemm.kernels import kernels, launch
from nybble.backends.cpu.spgemm.product import (
    DEFAULT,
    Setting,
    joined,
    matmul,
    products_of,
    room_of,
    shares,
    spec_of,
)
from nybble.dialects.numpy_ref.sparse import check_mask, check_operands
from nybble.dialects.spgemm.elements import ELEMENTS
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.semiring import SEMIRINGS, Semiring


@dataclass(frozen=True)
class AtMask:
    """tested: entries of B, or places of the mask, that were looked at for the product."""

    product: SparseMatrix
    tested: int


def matmul_at(
    a: SparseMatrix,
    b: SparseMatrix,
    mask: SparseMatrix,
    ring: Semiring = SEMIRINGS["plus_times"],
    setting: Setting = DEFAULT,
) -> AtMask:
    """A times B, checked, at the places of a checked mask: as `numpy_ref.sparse.matmul` says.

    Sums are the same to the bit as those of `product.matmul`. Rows without a mask cost nothing, and
    in the others a pair of rows at most the shorter of B's row and 16 searches for each place.
    Raises SparseError for operands or a mask that do not fit.
    """
    check_operands(a, b.shape[0], b.values, ring)
    check_mask(mask, (a.shape[0], b.shape[1]))
    bits = max(a.index_bits, b.index_bits)
    a, b, mask = a.with_index(bits), b.with_index(bits), mask.with_index(bits)
    spec, threads = spec_of(a, ring), setting.threads
    counts = np.diff(mask.indptr).astype(np.int64)
    longest = int(counts.max(initial=0))
    starts = shares(np.where(counts > 0, products_of(a, b, ring, setting), 0), threads)
    room = room_of(counts, starts, PAD)
    sums = ELEMENTS[spec.sum_name].dtype
    start = np.zeros(a.shape[0] + 1, a.indptr.dtype)
    index, value = np.empty(int(room[-1]), a.indices.dtype), np.empty(int(room[-1]), sums)
    totals, tested = np.zeros(threads, np.int64), np.zeros(threads, np.int64)
    tables = (
        np.zeros(threads * b.shape[1], a.indices.dtype),
        np.empty(threads * (longest + 1), sums),
        np.empty(threads * (longest + 1), np.int8),
        np.array([b.shape[1], longest]),
    )
    operands = (a.indptr, a.indices, a.values, b.indptr, b.indices, b.values)
    places = (mask.indptr, mask.indices, starts, room, totals, tested)
    arrays = (*operands, *places, start, index, value, *tables)
    launch(kernels(spec, setting.folder), "masked", arrays, threads)
    made = joined(start, index, value, (starts, room, totals))
    return AtMask(SparseMatrix((a.shape[0], b.shape[1]), *made), int(tested.sum()))


def matmul_beside(
    a: SparseMatrix,
    b: SparseMatrix,
    mask: SparseMatrix,
    ring: Semiring = SEMIRINGS["plus_times"],
    setting: Setting = DEFAULT,
) -> SparseMatrix:
    """A times B where a mask has no entries; all products are taken."""
    check_mask(mask, (a.shape[0], b.shape[1]))
    product = matmul(a, b, ring, setting)
    columns = max(1, product.shape[1])
    wanted = mask.row_ids * columns + mask.indices
    places = product.row_ids * columns + product.indices
    kept = np.ones(product.nnz, np.bool_)
    if len(wanted):
        kept = wanted[np.minimum(np.searchsorted(wanted, places), len(wanted) - 1)] != places
    ends = np.concatenate(([0], np.cumsum(kept)))[product.indptr]
    return SparseMatrix(
        product.shape,
        ends.astype(product.indptr.dtype),
        product.indices[kept],
        product.values[kept],
    )
