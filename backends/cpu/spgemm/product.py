"""Sparse products on the host: memory, shares of the threads, and the call of the kernels.

The result of `matmul` is written once, into memory that is reserved for every product that could
have a column of its own; pages that nothing is written to are never taken from the system, and the
reservation is cut down to the entries at the end. So no symbolic phase goes over the products a
second time. Products that would reserve more than `RESERVED` are computed in stretches of rows.
"""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.backends.cpu.spgemm.frame import PAD, Limits, Sizes, fronts, pairs
from nybble.backends.cpu.spgemm.kernels import kernels, launch
from nybble.backends.cpu.spgemm.spec import Spec
from nybble.dialects.numpy_ref.sparse import check_operands
from nybble.dialects.spgemm.elements import ELEMENTS, Values, element_of
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix, check_fits
from nybble.dialects.spgemm.semiring import SEMIRINGS, Semiring

LIMITS = Limits()
RESERVED = 1 << 30
"""Entries of a result that memory is reserved for at a time."""
MANY = 1 << 18
"""Elements that are worth another thread to move."""
BAND_BYTES = 1 << 18
"""Of rows of B that `spread` goes through together: half of a second-level cache."""
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Setting:
    """threads: at most so many; folder: a cache of object code; limits: see Limits."""

    threads: int = 1
    folder: Path | None = None
    limits: Limits = LIMITS


DEFAULT = Setting()


def spec_of(a: SparseMatrix, ring: Semiring) -> Spec:
    """What kernels for this matrix are generated for."""
    return Spec(a.element.name, a.index_bits, ring.name)


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
    products = products_of(a, b, ring, setting)
    bound = _bounded(products, b.shape[1])
    total = int(bound.sum())
    if not total:
        return _empty((a.shape[0], b.shape[1]), a, ring)
    if total <= RESERVED:
        return _stretch(a, b, ring, setting, (0, a.shape[0]), products)
    ends = np.cumsum(bound)
    parts: list[SparseMatrix] = []
    first = 0
    while first < a.shape[0]:
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + RESERVED, "right")))
        parts.append(_stretch(a, b, ring, setting, (first, last), products[first:last]))
        first = last
    return _stacked(parts, b.shape[1])


def products_of(a: SparseMatrix, b: SparseMatrix, ring: Semiring, setting: Setting) -> Ints:
    """How many products each row of A B takes."""
    made = np.zeros(a.shape[0], np.int64)
    if a.nnz and b.nnz:
        arrays = (a.indptr, a.indices, b.indptr, np.array([a.shape[0], 0]), made)
        launch(kernels(spec_of(a, ring), setting.folder), "work", arrays, setting.threads)
    return made


def _bounded(products: Ints, columns: int) -> Ints:
    """The most entries that each row of a result has."""
    return products if int(products.max(initial=0)) <= columns else products.clip(max=columns)


def shares(weights: Ints, threads: int) -> Ints:
    """Rows that each thread begins with, and the end: i64 [threads + 1], of about equal weight."""
    if threads == 1:
        return np.array([0, len(weights)])
    ends = np.concatenate(([0], np.cumsum(weights + 1)))
    wanted = int(ends[-1]) * np.arange(threads + 1) // threads
    return np.searchsorted(ends, wanted).astype(np.int64)


def _stretch(
    a: SparseMatrix,
    b: SparseMatrix,
    ring: Semiring,
    setting: Setting,
    rows: tuple[int, int],
    products: Ints,
) -> SparseMatrix:
    """Rows [first, last) of the product."""
    spec = spec_of(a, ring)
    first, last = rows
    starts = shares(products, setting.threads)
    bound = _bounded(products, b.shape[1])
    places = room_of(bound, starts, PAD)
    start = np.zeros(last - first + 1, a.indptr.dtype)
    index = np.empty(int(places[-1]), a.indices.dtype)
    value = np.empty(int(places[-1]), ELEMENTS[spec.sum_name].dtype)
    totals = np.zeros(setting.threads, np.int64)
    sizes = Sizes(b.shape[1], a.nnz, int(products.max()), setting.threads)
    plan, size = sizes.plan(spec, setting.limits)
    left = (a.indptr[first : last + 1], a.indices, a.values)
    result = (starts, places, totals, start, index, value)
    tables = (_fronts(), _pairs(), plan, np.empty(size, np.uint8))
    arrays = (*left, b.indptr, b.indices, b.values, *result, *tables)
    launch(kernels(spec, setting.folder), "rows", arrays, setting.threads)
    check_fits(int(totals.sum()), (last - first, b.shape[1]), a.index_bits)
    made = joined(start, index, value, (starts, places, totals))
    return SparseMatrix((last - first, b.shape[1]), *made)


def room_of(bounds: Ints, starts: Ints, padding: int) -> Ints:
    """The first place of each thread in a result whose rows have at most so many entries."""
    sizes = [int(bounds[begin:end].sum()) + padding for begin, end in pairwise(starts)]
    return np.concatenate(([0], np.cumsum(sizes)))


def joined(
    start: Ints, index: Ints, value: Values, parts: tuple[Ints, Ints, Ints]
) -> tuple[Ints, Ints, Values]:
    """The three arrays of a result that threads wrote apart, moved together and cut to size.

    start: where each row ends among its thread's entries. parts: first row, first place and number
    of entries of each thread. The arrays are changed.
    """
    starts, places, totals = parts
    threads, ends = len(totals), np.cumsum(totals)
    for thread in range(1, threads):
        start[starts[thread] + 1 : starts[thread + 1] + 1] += ends[thread - 1]
        whence = int(places[thread]), int(ends[thread - 1]), int(totals[thread])
        _move((index, value), *whence, threads)
    for array in (index, value):
        array.resize(int(ends[-1]), refcheck=False)
    return start, index, value


def _move(
    arrays: tuple[NDArray[Any], ...], source: int, target: int, count: int, threads: int
) -> None:
    """Move elements of every array towards the front, on several threads if there are many.

    Where the two places overlap, an array is moved by one thread.
    """
    parts = threads if source - target >= count else 1

    def move(array: NDArray[Any], part: int) -> None:
        size, start = array.itemsize, array.ctypes.data
        first, last = (count * one // parts * size for one in (part, part + 1))
        ctypes.memmove(start + target * size + first, start + source * size + first, last - first)

    pieces = [(array, part) for part in range(parts) for array in arrays]
    if count < MANY:
        for piece in pieces:
            move(*piece)
        return
    with ThreadPoolExecutor(threads) as team:  # memmove holds no lock of Python's
        for done in [team.submit(move, *piece) for piece in pieces]:
            done.result()


def _stacked(parts: list[SparseMatrix], columns: int) -> SparseMatrix:
    counts = np.concatenate([np.diff(part.indptr) for part in parts])
    ends = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    check_fits(int(ends[-1]), (len(counts), columns), parts[0].index_bits)
    return SparseMatrix(
        (len(counts), columns),
        ends.astype(parts[0].indptr.dtype),
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def _empty(shape: tuple[int, int], a: SparseMatrix, ring: Semiring) -> SparseMatrix:
    dtype = ELEMENTS[spec_of(a, ring).sum_name].dtype
    kind = a.indices.dtype
    return SparseMatrix(shape, np.zeros(shape[0] + 1, kind), np.zeros(0, kind), np.zeros(0, dtype))


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
    starts = shares(products_of(a, b, ring, setting), setting.threads)
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
