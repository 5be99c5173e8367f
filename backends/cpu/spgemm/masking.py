"""Products where a mask has entries, or has none, on the host.

At the places of a mask the work follows the mask: see `masked.py`. At the others, all products are
taken and those at the mask's places are dropped.
"""

from dataclasses import dataclass

import numpy as np

from nybble.backends.cpu.spgemm.chunks import DEFAULT, Setting, cut
from nybble.backends.cpu.spgemm.kernels import kernels, launch
from nybble.backends.cpu.spgemm.product import matmul, spec_of
from nybble.backends.cpu.spgemm.result import Arrays, written
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
    spec, shape = spec_of(a, ring), mask.shape
    longest = int(np.diff(mask.indptr).max(initial=0))
    sums = ELEMENTS[spec.sum_name].dtype
    operands = (a.indptr, a.indices, a.values, b.indptr, b.indices, b.values)
    looked_at = 0

    def masked(result: Arrays, threads: int) -> None:
        nonlocal looked_at
        tested = np.zeros(threads, np.int64)
        tables = (
            np.zeros(threads * shape[1], a.indices.dtype),
            np.empty(threads * (longest + 1), sums),
            np.empty(threads * (longest + 1), np.int8),
            np.array([shape[1], longest]),
        )
        arrays = (*operands, mask.indptr, mask.indices, *result, *tables, tested)
        launch(kernels(spec, setting.folder), "masked", arrays, threads)
        looked_at += int(tested.sum())

    chunks = cut(a, b, spec, setting, mask)
    made = written(chunks, shape, spec, setting, masked)
    return AtMask(SparseMatrix(shape, *made), looked_at)


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
