"""References of sparse products: every pair of stored entries, written out and added up.

The order of a sum is that of the contracted index; floats are added in f64 and rounded once, so
that these are more exact than any kernel.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.dialects.spgemm.elements import ELEMENTS, Values, element_of, widened
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix, check_fits
from nybble.dialects.spgemm.semiring import SEMIRINGS, Semiring

PLUS_TIMES = SEMIRINGS["plus_times"]


def sum_dtype(values: Values, ring: Semiring) -> np.dtype[Any]:
    """The dtype of a product of two such arrays: that of their sums, or theirs in or_and."""
    element = element_of(values)
    return element.dtype if ring.name == "or_and" else ELEMENTS[element.sum].dtype


def matmul(
    a: SparseMatrix,
    b: SparseMatrix,
    ring: Semiring = PLUS_TIMES,
    mask: SparseMatrix | None = None,
    complement: bool = False,
) -> SparseMatrix:
    """C[i, j] = sum over k of A[i, k] * B[k, j], of stored entries, where any such pair exists.

    mask: keep the places that it has entries in (complement: has none in), whatever their values.
    Raises SparseError for shapes or types that do not fit, and where C does not fit the indices.
    """
    check_operands(a, b.shape[0], b.values, ring)
    dtype = sum_dtype(a.values, ring)
    wide = np.dtype(np.float64) if dtype.kind == "f" else dtype
    lengths = np.diff(b.indptr)[a.indices]
    source = np.repeat(np.arange(a.nnz), lengths)
    ends = np.cumsum(lengths)
    at = np.arange(len(source)) - np.repeat(ends - lengths, lengths)
    at += b.indptr[a.indices].astype(np.int64)[source]
    keys = a.row_ids[source] * b.shape[1] + b.indices[at]
    with np.errstate(over="ignore", invalid="ignore"):
        left, right = (_wide(m.values, wide) for m in (a, b))
        products = ring.multiply(left[source], right[at])
        return _collected(
            keys, products, (a.shape[0], b.shape[1]), ring, dtype, mask, complement, a
        )


def _collected(
    keys: NDArray[np.int64],
    products: Values,
    shape: tuple[int, int],
    ring: Semiring,
    dtype: np.dtype[Any],
    mask: SparseMatrix | None,
    complement: bool,
    like: SparseMatrix,
) -> SparseMatrix:
    if mask is not None:
        check_mask(mask, shape)
        wanted = mask.row_ids * shape[1] + mask.indices
        kept = np.isin(keys, wanted, invert=complement)
        keys, products = keys[kept], products[kept]
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    check_fits(len(found), shape, like.index_bits)
    sums = ring.add.reduceat(products[order], starts) if len(starts) else products[:0]
    rows, cols = np.divmod(found, max(1, shape[1]))
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=shape[0]))))
    index = like.indices.dtype
    return SparseMatrix(shape, indptr.astype(index), cols.astype(index), sums.astype(dtype))


def spmm(a: SparseMatrix, b: Values, ring: Semiring = PLUS_TIMES) -> Values:
    """Sparse A [m, k] times dense B [k, n]: dense [m, n]; `ring.zero` where a row of A is empty."""
    check_operands(a, b.shape[0], b, ring)
    dtype = sum_dtype(a.values, ring)
    wide = np.dtype(np.float64) if dtype.kind == "f" else dtype
    out = np.full((a.shape[0], b.shape[1]), ring.zero(wide), wide)
    with np.errstate(over="ignore", invalid="ignore"):
        left, right = _wide(a.values, wide), _wide(b, wide)
        for row, (first, last) in enumerate(zip(a.indptr, a.indptr[1:], strict=False)):
            for at in range(first, last):
                out[row] = ring.add(out[row], ring.multiply(left[at], right[a.indices[at]]))
        return out.astype(dtype)


def sddmm(x: Values, y: Values, mask: SparseMatrix) -> SparseMatrix:
    """x [m, k] times the transpose of y [n, k], at the stored places of a mask [m, n] alone.

    The values of the mask do not matter. Raises SparseError for shapes that do not fit.
    """
    if x.shape[1] != y.shape[1] or mask.shape != (len(x), len(y)) or x.dtype != y.dtype:
        raise SparseError(
            f"{x.dtype} {x.shape} by {y.dtype} {y.shape} at a mask of {mask.shape}",
            accepted="[m, k] by [n, k] at [m, n]",
        )
    dtype = sum_dtype(x.reshape(-1), PLUS_TIMES)
    wide = np.dtype(np.float64) if dtype.kind == "f" else dtype
    left, right = (_wide(one.reshape(-1), wide).reshape(one.shape) for one in (x, y))
    values = np.einsum("ek,ek->e", left[mask.row_ids], right[mask.indices])
    return mask.with_values(values.astype(dtype))


def softmax(scores: SparseMatrix, scale: float = 1.0) -> SparseMatrix:
    """exp of scale times the entries of each row, divided by their sum; an empty row stays so."""
    values = widened(scores.values).astype(np.float64) * scale
    rows = scores.row_ids
    top = np.full(scores.shape[0], -np.inf)
    np.maximum.at(top, rows, values)
    parts = np.exp(values - top[rows])
    total = np.bincount(rows, parts, scores.shape[0])
    return scores.with_values((parts / total[rows]).astype(widened(scores.values).dtype))


def check_operands(a: SparseMatrix, depth: int, values: Values, ring: Semiring) -> None:
    """Raises SparseError unless A [m, depth] and values of B are what the semiring multiplies."""
    if a.shape[1] != depth:
        raise SparseError(f"{a.shape[1]} columns by {depth} rows", accepted="as many")
    if a.values.dtype != values.dtype:
        raise SparseError(f"{a.values.dtype} by {values.dtype}", accepted="one dtype for both")
    ring.check(a.values)
    ring.check(values)


def check_mask(mask: SparseMatrix, shape: tuple[int, int]) -> None:
    """Raises SparseError unless a mask has the shape of the result."""
    if mask.shape != shape:
        raise SparseError(f"a mask of {mask.shape}", accepted=f"{shape}")


def _wide(values: Values, dtype: np.dtype[Any]) -> Values:
    return widened(values).astype(dtype, copy=False)
