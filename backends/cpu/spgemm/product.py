"""Sparse products on the host: operands are checked, cut into chunks, and given to the kernels."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from nybble.backends.cpu.spgemm.chunks import DEFAULT, Ints, Setting, cut
from nybble.backends.cpu.spgemm.frame import Sizes, fronts, pairs
from nybble.backends.cpu.spgemm.kernels import kernels, launch
from nybble.backends.cpu.spgemm.result import Arrays, written
from nybble.backends.cpu.spgemm.spec import Spec
from nybble.dialects.numpy_ref.sparse import check_operands
from nybble.dialects.spgemm.elements import ELEMENTS, Values, element_of
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.semiring import SEMIRINGS, Semiring

BAND_BYTES = 1 << 18
"""Of rows of B that `spread` goes through together: half of a second-level cache."""


def spec_of(a: SparseMatrix, ring: Semiring) -> Spec:
    """What kernels for this matrix are generated for."""
    return _spec(a.element.name, a.index_bits, ring.name)


_spec = cache(Spec)


def matmul(
    a: SparseMatrix,
    b: SparseMatrix,
    ring: Semiring = SEMIRINGS["plus_times"],
    setting: Setting = DEFAULT,
) -> SparseMatrix:
    """Sparse A times sparse B, both checked, as `numpy_ref.sparse.matmul` says; sparse.

    The order of each sum is that of the row's entries, whatever the number of threads. Raises
    SparseError for operands that do not fit, and where the result does not fit the indices.
    """
    check_operands(a, b.shape[0], b.values, ring)
    bits = max(a.index_bits, b.index_bits)
    a, b = a.with_index(bits), b.with_index(bits)
    spec, shape = spec_of(a, ring), (a.shape[0], b.shape[1])
    chunks = cut(a, b, spec, setting)
    operands = (a.indptr, a.indices, a.values, b.indptr, b.indices, b.values)
    sizes = Sizes(b.shape[1], a.nnz, chunks.longest)

    def rows(result: Arrays, threads: int) -> None:
        plan, size = sizes.plan(spec, setting.limits)
        tables = (_fronts(), _pairs(), plan, np.empty(threads * size, np.uint8))
        arrays = (*operands, *result, *tables)
        launch(kernels(spec, setting.folder), "rows", arrays, threads)

    return SparseMatrix(shape, *written(chunks, shape, spec, setting, rows))


def shares(weights: Ints, threads: int) -> Ints:
    """Rows that each thread begins with, and the end: i64 [threads + 1], of about equal weight."""
    if threads == 1:
        return np.array([0, len(weights)])
    ends = np.concatenate(([0], np.cumsum(weights + 1)))
    wanted = int(ends[-1]) * np.arange(threads + 1) // threads
    return np.searchsorted(ends, wanted).astype(np.int64)


def spread(
    a: SparseMatrix,
    b: SparseMatrix,
    ring: Semiring = SEMIRINGS["plus_times"],
    setting: Setting = DEFAULT,
) -> Values:
    """Sparse A times sparse B, both checked: dense [rows of A, columns of B]."""
    check_operands(a, b.shape[0], b.values, ring)
    bits = max(a.index_bits, b.index_bits)
    a, b = a.with_index(bits), b.with_index(bits)
    spec = spec_of(a, ring)
    out = np.empty((a.shape[0], b.shape[1]), ELEMENTS[spec.sum_name].dtype)
    starts = cut(a, b, spec, setting).shares(setting.threads)
    per_row = (b.indices.nbytes + b.values.nbytes) // max(1, b.shape[0])
    band = max(1, BAND_BYTES // max(1, per_row))
    sizes = np.array([b.shape[1], b.shape[0], band])
    cursor = np.empty(a.shape[0], np.int64)
    operands = (a.indptr, a.indices, a.values, b.indptr, b.indices, b.values)
    arrays = (*operands, starts, cursor, sizes, out)
    launch(kernels(spec, setting.folder), "spread", arrays, setting.threads)
    return out


def spmm(
    a: SparseMatrix,
    x: Values,
    ring: Semiring = SEMIRINGS["plus_times"],
    setting: Setting = DEFAULT,
) -> Values:
    """Sparse A, checked, times dense x [columns of A, n]: dense [rows of A, n]."""
    check_operands(a, x.shape[0], x, ring)
    spec = spec_of(a, ring)
    out = np.empty((a.shape[0], x.shape[1]), ELEMENTS[spec.sum_name].dtype)
    starts = shares(np.diff(a.indptr).astype(np.int64), setting.threads)
    left = (a.indptr, a.indices, a.values)
    arrays = (*left, np.ascontiguousarray(x), starts, np.array([x.shape[1]]), out)
    launch(kernels(spec, setting.folder), "spmm", arrays, setting.threads)
    return out


def sddmm(x: Values, y: Values, mask: SparseMatrix, setting: Setting = DEFAULT) -> SparseMatrix:
    """x [m, k] times the transpose of y [n, k] at the stored places of a checked mask [m, n]."""
    if x.shape[1] != y.shape[1] or mask.shape != (len(x), len(y)) or x.dtype != y.dtype:
        raise SparseError(
            f"{x.dtype} {x.shape} by {y.dtype} {y.shape} at a mask of {mask.shape}",
            accepted="[m, k] by [n, k] at [m, n]",
        )
    spec = Spec(element_of(x.reshape(-1)).name, mask.index_bits)
    out = np.empty(mask.nnz, ELEMENTS[spec.sum_name].dtype)
    starts = shares(np.diff(mask.indptr).astype(np.int64), setting.threads)
    factors = (np.ascontiguousarray(x), np.ascontiguousarray(y))
    arrays = (mask.indptr, mask.indices, *factors, starts, np.array([x.shape[1]]), out)
    launch(kernels(spec, setting.folder), "sddmm", arrays, setting.threads)
    return mask.with_values(out)


@cache
def _fronts() -> NDArray[np.uint8]:
    return fronts()


@cache
def _pairs() -> NDArray[np.uint8]:
    return pairs()
