"""`SparseMatrix`: compressed rows on the host, the form that every layout and product goes through.

Checking and repairing are two things. `check` refuses whatever breaks a rule; `canonical` sorts the
columns of every row and adds up duplicates, as SciPy understands them, and refuses the rest.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.dialects.spgemm.elements import Element, Values, element_of, to_bf16, widened
from nybble.dialects.spgemm.errors import SparseError

Index = NDArray[np.signedinteger[Any]]
LARGEST_32 = np.iinfo(np.int32).max


@dataclass(frozen=True)
class SparseMatrix:
    """Compressed sparse rows: row r has columns indices[indptr[r] : indptr[r + 1]] and as many
    values.

    shape: rows, columns. indptr: i32 or i64 [rows + 1]; indices: of the same type [nnz], ascending
    in every row. values: [nnz] of a dtype in `ELEMENTS`; u16 holds the bits of bf16. A stored zero
    is an entry like any other.
    """

    shape: tuple[int, int]
    indptr: Index
    indices: Index
    values: Values

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return len(self.indices)

    @property
    def element(self) -> Element:
        """The element type; raises SparseError for a dtype that none has."""
        return element_of(self.values)

    @property
    def index_bits(self) -> int:
        """Width of the indices: 32 or 64."""
        return self.indices.dtype.itemsize * 8

    @property
    def bytes(self) -> int:
        """Memory that the three arrays take."""
        return self.indptr.nbytes + self.indices.nbytes + self.values.nbytes

    @property
    def row_ids(self) -> NDArray[np.int64]:
        """The row of each stored entry."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))

    def check(self) -> "SparseMatrix":
        """This matrix; raises SparseError unless all that the class promises holds."""
        self._check_frame()
        if not self.nnz:
            return self
        ascending = np.diff(self.indices) > 0
        starts = self.indptr[1:-1]
        inner = starts[(starts > 0) & (starts < self.nnz)]
        ascending[inner - 1] = True  # a new row may begin with any column
        if not ascending.all():
            at = int(np.argmin(ascending)) + 1
            row = int(np.searchsorted(self.indptr, at, "right")) - 1
            kind = "a duplicate" if self.indices[at] == self.indices[at - 1] else "unsorted"
            raise SparseError(
                f"row {row} has column {self.indices[at]} {kind}",
                accepted="ascending columns; canonical() sorts and adds up",
            )
        return self

    def canonical(self) -> "SparseMatrix":
        """The same matrix with sorted columns and duplicates added up, in the order they are in.

        This matrix where it is so already. f16 and bf16 are added in f32, and i8 in i32: sums that
        i8 cannot hold raise SparseError, as does all that sorting does not repair.
        """
        self._check_frame()
        try:
            return self.check()
        except SparseError:
            pass
        rows = self.row_ids
        order = np.lexsort((self.indices, rows))
        keys = np.stack((rows[order], self.indices[order]))
        first = np.ones(self.nnz, np.bool_)
        first[1:] = np.any(np.diff(keys) != 0, axis=0)
        sums = np.add.reduceat(widened(self.values)[order], np.flatnonzero(first))
        counts = np.bincount(keys[0][first], minlength=self.shape[0])
        indptr = np.concatenate(([0], np.cumsum(counts))).astype(self.indptr.dtype)
        indices = keys[1][first].astype(self.indices.dtype)
        return SparseMatrix(self.shape, indptr, indices, _narrowed(sums, self.element))

    def _check_frame(self) -> None:
        """Everything but the order of columns."""
        rows, cols = self.shape
        if rows < 0 or cols < 0:
            raise SparseError(f"shape {rows} x {cols}", accepted="no negative dimension")
        _check_types(self)
        if len(self.indptr) != rows + 1:
            raise SparseError(
                f"indptr of {len(self.indptr)} entries", accepted=f"{rows + 1}, the rows and one"
            )
        if self.indptr[0] != 0 or np.any(np.diff(self.indptr) < 0):
            raise SparseError("indptr that does not ascend from 0")
        if int(self.indptr[-1]) != self.nnz or len(self.values) != self.nnz:
            raise SparseError(
                f"indptr ends with {self.indptr[-1]}, there are {self.nnz} indices and"
                f" {len(self.values)} values",
                accepted="one number of entries",
            )
        if self.nnz and (self.indices.min() < 0 or self.indices.max() >= cols):
            bad = self.indices[(self.indices < 0) | (self.indices >= cols)][0]
            raise SparseError(f"column {bad}", accepted=f"0 to {cols - 1}")

    def with_values(self, values: Values) -> "SparseMatrix":
        """The same places with other values [nnz]."""
        return SparseMatrix(self.shape, self.indptr, self.indices, values)

    def with_index(self, bits: int) -> "SparseMatrix":
        """The same matrix with indices of 32 or 64 bits.

        Raises SparseError where 32 do not suffice for the entries or the shape.
        """
        if bits == self.index_bits and self.indptr.dtype == self.indices.dtype:
            return self
        check_fits(self.nnz, self.shape, bits)
        dtype = np.dtype(f"int{bits}")
        return SparseMatrix(
            self.shape,
            self.indptr.astype(dtype, copy=False),
            self.indices.astype(dtype, copy=False),
            self.values,
        )

    def transposed(self) -> "SparseMatrix":
        """The transpose; also the compressed columns of this matrix. Keeps the index width."""
        order = np.argsort(self.indices, kind="stable")
        counts = np.bincount(self.indices, minlength=self.shape[1])
        indptr = np.concatenate(([0], np.cumsum(counts))).astype(self.indptr.dtype)
        rows = self.row_ids[order].astype(self.indices.dtype)
        return SparseMatrix((self.shape[1], self.shape[0]), indptr, rows, self.values[order])

    def to_dense(self, fill: float = 0) -> Values:
        """[rows, cols] of the values' dtype, `fill` where nothing is stored."""
        made = np.full(self.shape, fill, self.values.dtype)
        made[self.row_ids, self.indices] = self.values
        return made

    @staticmethod
    def from_dense(dense: Values, index_bits: int = 32) -> "SparseMatrix":
        """The entries of [rows, cols] that are not 0; a NaN is one."""
        nonzero = dense != 0
        rows, cols = np.nonzero(nonzero)
        counts = nonzero.sum(axis=1)
        return from_arrays(dense.shape, counts, cols, dense[rows, cols], index_bits)


def from_arrays(
    shape: tuple[int, ...],
    counts: NDArray[Any],
    indices: NDArray[Any],
    values: Values,
    index_bits: int = 32,
) -> SparseMatrix:
    """A checked matrix from the number of entries of each row, and the entries in order.

    Raises SparseError where the indices do not fit `index_bits`.
    """
    rows, cols = shape
    check_fits(len(indices), (rows, cols), index_bits)
    dtype = np.dtype(f"int{index_bits}")
    indptr = np.concatenate(([0], np.cumsum(counts))).astype(dtype)
    return SparseMatrix((rows, cols), indptr, indices.astype(dtype), values).check()


def check_fits(entries: int, shape: tuple[int, int], bits: int) -> None:
    """Raises SparseError where indices of that width cannot count the entries or the columns."""
    if bits not in (32, 64):
        raise SparseError(f"indices of {bits} bits", accepted="32, 64")
    largest = max(entries, *shape)
    if bits == 32 and largest > LARGEST_32:
        raise SparseError(
            f"{entries} entries of a {shape[0]} x {shape[1]} matrix with indices of 32 bits",
            accepted="indices of 64 bits",
        )


def _check_types(matrix: SparseMatrix) -> None:
    arrays = {"indptr": matrix.indptr, "indices": matrix.indices, "values": matrix.values}
    for name, array in arrays.items():
        if array.ndim != 1:
            raise SparseError(f"{name} of {array.ndim} dimensions", accepted="one")
    dtypes = {matrix.indptr.dtype, matrix.indices.dtype}
    if len(dtypes) != 1 or not dtypes <= {np.dtype(np.int32), np.dtype(np.int64)}:
        raise SparseError(
            f"indptr of {matrix.indptr.dtype}, indices of {matrix.indices.dtype}",
            accepted="both int32 or both int64",
        )
    element_of(matrix.values)


def _narrowed(sums: Values, element: Element) -> Values:
    if element.name == "bf16":
        return to_bf16(sums)
    if element.name == "i8" and np.any(sums != sums.astype(np.int8)):
        raise SparseError("duplicates that add up to more than i8 holds", accepted="wider values")
    return sums.astype(element.dtype, copy=False)
