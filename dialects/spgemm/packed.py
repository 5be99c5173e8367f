"""A sparse matrix in one of the layouts, as arrays; to and from compressed rows.

`pack` keeps every stored entry or refuses; blocks and groups are filled up with zeros, and those
are not entries any more when `unpack` returns. Low-bit values are codes of a format: see
`Packed.codes`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.dialects.lowbit import formats
from nybble.dialects.spgemm.elements import Values
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.layouts import KINDS, Layout
from nybble.dialects.spgemm.matrix import SparseMatrix, from_arrays

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Packed:
    """arrays: those that KINDS names, by name. codes: the values in a low-bit format, or None.

    Low-bit values are one row [1, entries] of the format, filled up with zeros to whole groups; the
    array `values` then has what they decode to, f32.
    """

    layout: Layout
    shape: tuple[int, int]
    arrays: Mapping[str, NDArray[Any]]
    codes: formats.Weight | None = None

    @property
    def bytes(self) -> int:
        """Memory of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


def pack(matrix: SparseMatrix, layout: Layout, spec: str | None = None) -> Packed:
    """The matrix in a layout; spec: spelling of a low-bit format that its values are rounded to.

    Raises SparseError where the layout cannot hold the matrix, FormatError for an unknown format.
    """
    matrix.check()
    layout.check()
    layout.check_shape(*matrix.shape)
    arrays = _PACK[layout.kind](matrix, layout)
    if spec is None:
        return Packed(layout, matrix.shape, arrays)
    codes = _low_bit(arrays["values"], spec)
    values = arrays["values"]
    arrays["values"] = codes.dequantize()[0, : values.size].reshape(values.shape)
    return Packed(layout, matrix.shape, arrays, codes)


def unpack(packed: Packed) -> SparseMatrix:
    """Compressed rows; raises SparseError for arrays that are not of the layout."""
    packed.layout.check()
    packed.layout.check_shape(*packed.shape)
    if set(packed.arrays) != set(KINDS[packed.layout.kind].arrays):
        raise SparseError(
            f"{packed.layout} of {', '.join(packed.arrays)}",
            accepted=", ".join(KINDS[packed.layout.kind].arrays),
        )
    return _UNPACK[packed.layout.kind](packed)


def _low_bit(values: Values, spec: str) -> formats.Weight:
    flat = values.astype(np.float32).reshape(1, -1)
    group = formats.get(spec).group or 1
    filled = np.zeros((1, max(1, -(-flat.size // group)) * group), np.float32)
    filled[:, : flat.size] = flat
    return formats.get(spec).quantize(filled)


def _csr(matrix: SparseMatrix, _: Layout) -> Arrays:
    return {"indptr": matrix.indptr, "indices": matrix.indices, "values": matrix.values}


def _csc(matrix: SparseMatrix, layout: Layout) -> Arrays:
    return _csr(matrix.transposed(), layout)


def _coo(matrix: SparseMatrix, _: Layout) -> Arrays:
    rows = matrix.row_ids.astype(matrix.indices.dtype)
    return {"rows": rows, "indices": matrix.indices, "values": matrix.values}


def _rows(matrix: SparseMatrix, _: Layout) -> Arrays:
    used = np.flatnonzero(np.diff(matrix.indptr))
    indptr = np.concatenate((matrix.indptr[:1], matrix.indptr[1:][used]))
    rows = used.astype(matrix.indices.dtype)
    return {"rows": rows, "indptr": indptr, "indices": matrix.indices, "values": matrix.values}


def _bitmap(matrix: SparseMatrix, _: Layout) -> Arrays:
    bits = np.zeros(matrix.shape, np.bool_)
    bits[matrix.row_ids, matrix.indices] = True
    packed = np.packbits(bits, axis=1, bitorder="little")
    return {"indptr": matrix.indptr, "bits": packed, "values": matrix.values}


def _bcsr(matrix: SparseMatrix, layout: Layout) -> Arrays:
    height, width = layout.sizes
    across = max(1, matrix.shape[1] // width)
    rows, cols = matrix.row_ids, matrix.indices.astype(np.int64)
    places, block = np.unique(rows // height * across + cols // width, return_inverse=True)
    values = np.zeros((len(places), height, width), matrix.values.dtype)
    values[block, rows % height, cols % width] = matrix.values
    counts = np.bincount(places // across, minlength=matrix.shape[0] // height)
    dtype = matrix.indices.dtype
    indptr = np.concatenate(([0], np.cumsum(counts))).astype(dtype)
    return {"indptr": indptr, "indices": (places % across).astype(dtype), "values": values}


def _nm(matrix: SparseMatrix, layout: Layout) -> Arrays:
    kept, group = layout.sizes
    rows, cols = matrix.row_ids, matrix.indices.astype(np.int64)
    groups = matrix.shape[1] // group
    key = rows * groups + cols // group
    counts = np.bincount(key, minlength=matrix.shape[0] * groups)
    if counts.size and counts.max() > kept:
        row, at = divmod(int(np.argmax(counts)), groups)
        raise SparseError(
            f"row {row} has {counts.max()} entries in columns {at * group} to"
            f" {at * group + group - 1}",
            accepted=f"at most {kept}, for {layout}",
        )
    starts = np.concatenate(([0], np.cumsum(counts)))[:-1]
    slot = np.arange(matrix.nnz) - starts[key]
    values = np.zeros((matrix.shape[0], groups, kept), matrix.values.dtype)
    # A place that is not taken repeats the last of the group, so that places ascend.
    places = np.full(values.shape, group - 1, np.uint8)
    values[rows, cols // group, slot] = matrix.values
    places[rows, cols // group, slot] = cols % group
    return {"indices": places, "values": values}


def _from_csr(packed: Packed) -> SparseMatrix:
    arrays = packed.arrays
    return SparseMatrix(packed.shape, arrays["indptr"], arrays["indices"], arrays["values"]).check()


def _from_csc(packed: Packed) -> SparseMatrix:
    arrays, (rows, cols) = packed.arrays, packed.shape
    turned = SparseMatrix((cols, rows), arrays["indptr"], arrays["indices"], arrays["values"])
    return turned.check().transposed()


def _from_coo(packed: Packed) -> SparseMatrix:
    rows, indices = packed.arrays["rows"], packed.arrays["indices"]
    values = packed.arrays["values"]
    _check_rows(rows)
    if not len(rows) == len(indices) == len(values):
        raise SparseError(f"{len(rows)} rows, {len(indices)} columns, {len(values)} values")
    if len(rows) and (rows.min() < 0 or rows.max() >= packed.shape[0]):
        bad = rows[(rows < 0) | (rows >= packed.shape[0])][0]
        raise SparseError(f"row {bad}", accepted=f"0 to {packed.shape[0] - 1}")
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows, minlength=packed.shape[0])
    indptr = np.concatenate(([0], np.cumsum(counts))).astype(indices.dtype)
    return SparseMatrix(packed.shape, indptr, indices[order], values[order]).canonical()


def _check_rows(rows: NDArray[Any]) -> None:
    if rows.ndim != 1 or rows.dtype.name not in ("int32", "int64"):
        raise SparseError(
            f"rows {rows.dtype} of {rows.ndim} dimensions", accepted="int32 or int64 of one"
        )


def _from_rows(packed: Packed) -> SparseMatrix:
    used, starts = packed.arrays["rows"], packed.arrays["indptr"]
    _check_rows(used)
    inside = len(used) == 0 or (used[0] >= 0 and used[-1] < packed.shape[0])
    if len(starts) != len(used) + 1 or np.any(np.diff(used) <= 0) or not inside:
        raise SparseError("a list of rows that does not ascend within the shape")
    counts = np.zeros(packed.shape[0], np.int64)
    counts[used] = np.diff(starts)
    indptr = np.concatenate(([0], np.cumsum(counts))).astype(starts.dtype)
    arrays = packed.arrays
    return SparseMatrix(packed.shape, indptr, arrays["indices"], arrays["values"]).check()


def _from_bitmap(packed: Packed) -> SparseMatrix:
    bits, (rows, cols) = packed.arrays["bits"], packed.shape
    if bits.shape != (rows, -(-cols // 8)) or bits.dtype != np.uint8:
        raise SparseError(f"bits {bits.dtype} {bits.shape}", accepted=f"u8 {rows, -(-cols // 8)}")
    is_set = np.unpackbits(bits, axis=1, count=cols, bitorder="little")
    indptr = packed.arrays["indptr"]
    made = SparseMatrix(
        packed.shape, indptr, np.nonzero(is_set)[1].astype(indptr.dtype), packed.arrays["values"]
    ).check()
    if np.any(np.diff(indptr) != is_set.sum(axis=1)):
        raise SparseError("indptr that does not count the bits of every row")
    return made


def _from_bcsr(packed: Packed) -> SparseMatrix:
    height, width = packed.layout.sizes
    arrays, (rows, cols) = packed.arrays, packed.shape
    values = arrays["values"]
    if values.shape[1:] != (height, width):
        raise SparseError(f"blocks of {values.shape[1:]}", accepted=str(packed.layout))
    blocks = SparseMatrix(
        (rows // height, cols // width),
        arrays["indptr"],
        arrays["indices"],
        np.arange(len(values), dtype=np.int64),
    ).check()
    block, inner, across = np.nonzero(values)
    row = blocks.row_ids[block] * height + inner
    col = arrays["indices"][block].astype(np.int64) * width + across
    order = np.lexsort((col, row))
    counts = np.bincount(row, minlength=rows)
    bits = arrays["indices"].dtype.itemsize * 8
    return from_arrays(packed.shape, counts, col[order], values[values != 0][order], bits)


def _from_nm(packed: Packed) -> SparseMatrix:
    kept, group = packed.layout.sizes
    values, places = packed.arrays["values"], packed.arrays["indices"]
    expected = (packed.shape[0], packed.shape[1] // group, kept)
    if values.shape != expected or places.shape != expected:
        raise SparseError(f"values {values.shape}, places {places.shape}", accepted=f"{expected}")
    if places.size and places.max() >= group:
        raise SparseError(f"place {places.max()}", accepted=f"0 to {group - 1}")
    row, at, slot = np.nonzero(values)
    cols = at * group + places[row, at, slot]
    return from_arrays(
        packed.shape, np.bincount(row, minlength=expected[0]), cols, values[values != 0]
    )


_PACK: Mapping[str, Callable[[SparseMatrix, Layout], Arrays]] = {
    "csr": _csr,
    "csc": _csc,
    "coo": _coo,
    "rows": _rows,
    "bitmap": _bitmap,
    "bcsr": _bcsr,
    "nm": _nm,
}
_UNPACK: Mapping[str, Callable[[Packed], SparseMatrix]] = {
    "csr": _from_csr,
    "csc": _from_csc,
    "coo": _from_coo,
    "rows": _from_rows,
    "bitmap": _from_bitmap,
    "bcsr": _from_bcsr,
    "nm": _from_nm,
}
