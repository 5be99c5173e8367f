"""Sparse matrices from elsewhere: SciPy, torch, Matrix Market and `.npz` files; and back to SciPy.

What comes in is made canonical: columns sorted, duplicates added up. Indices out of range, wrong
lengths and types that no kernel has are refused.
"""

from pathlib import Path
from typing import Any

import numpy as np

from nybble.backends.cpu.spgemm.weights import kept_values
from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.spgemm.elements import ELEMENTS
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.layouts import Layout
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.packed import Packed, unpack

SUFFIXES = (".mtx", ".mtx.gz", ".npz")


def from_scipy(matrix: Any) -> SparseMatrix:
    """A SciPy sparse matrix or array of any format, of two dimensions.

    bool becomes i8; f128 and complex numbers are refused.
    """
    import scipy.sparse as sparse

    if not sparse.issparse(matrix) or matrix.ndim != 2:
        raise SparseError(f"{type(matrix).__name__}", accepted="a SciPy matrix of two dimensions")
    if matrix.dtype == np.int8 and matrix.format in ("coo", "bsr"):
        return _from_coordinates(matrix.tocoo())  # SciPy would let sums of duplicates wrap
    rows = matrix.tocsr()
    values = rows.data.astype(np.int8) if rows.data.dtype == np.bool_ else rows.data
    if values.dtype == np.uint16 or values.dtype not in [e.dtype for e in ELEMENTS.values()]:
        raise SparseError(f"values of dtype {values.dtype}", accepted="bool, " + _dtypes())
    shape = (int(rows.shape[0]), int(rows.shape[1]))
    made = SparseMatrix(shape, rows.indptr, rows.indices, values)
    return made.canonical()


def _from_coordinates(matrix: Any) -> SparseMatrix:
    arrays = {"rows": matrix.row, "indices": matrix.col, "values": matrix.data}
    return unpack(Packed(Layout("coo"), (int(matrix.shape[0]), int(matrix.shape[1])), arrays))


def to_scipy(matrix: SparseMatrix) -> Any:
    """A SciPy csr_array of the same arrays; bf16 as f32, which SciPy has."""
    import scipy.sparse as sparse

    from nybble.dialects.spgemm.elements import widened

    values = widened(matrix.values) if matrix.element.name == "bf16" else matrix.values
    made = sparse.csr_array((values, matrix.indices, matrix.indptr), shape=matrix.shape, copy=False)
    made.has_canonical_format = True
    return made


def from_torch(tensor: Any) -> SparseMatrix:
    """A torch tensor of layout sparse_coo, sparse_csr, sparse_csc or sparse_bsr, on the CPU."""
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2:
        raise SparseError(f"{type(tensor).__name__}", accepted="a torch tensor of two dimensions")
    held: torch.Tensor = tensor.detach()
    shape = (int(held.shape[0]), int(held.shape[1]))
    if held.layout is torch.sparse_coo:
        rows, columns = (part.numpy() for part in held.coalesce().indices())
        arrays = {"rows": rows, "indices": columns, "values": _values(held.coalesce().values())}
        return unpack(Packed(Layout("coo"), shape, arrays))
    if held.layout is torch.sparse_csr:
        start, index, layout = held.crow_indices(), held.col_indices(), Layout("csr")
    elif held.layout is torch.sparse_csc:
        start, index, layout = held.ccol_indices(), held.row_indices(), Layout("csc")
    elif held.layout is torch.sparse_bsr:
        start, index = held.crow_indices(), held.col_indices()
        layout = Layout("bcsr", (int(held.values().shape[1]), int(held.values().shape[2])))
    else:
        raise SparseError(
            f"a torch tensor of layout {held.layout}",
            accepted="sparse_coo, sparse_csr, sparse_csc, sparse_bsr",
        )
    arrays = {"indptr": start.numpy(), "indices": index.numpy(), "values": _values(held.values())}
    if layout.kind == "bcsr":
        return unpack(Packed(layout, shape, arrays))
    if layout.kind == "csr":
        return SparseMatrix(shape, *arrays.values()).canonical()
    return SparseMatrix(shape[::-1], *arrays.values()).canonical().transposed()


def _values(values: Any) -> Any:
    """A torch tensor as an array that ELEMENTS knows: bf16 as its bits, bool as i8."""
    import torch

    if values.dtype == torch.bfloat16:
        return values.view(torch.int16).numpy().view(np.uint16)
    return values.to(torch.int8).numpy() if values.dtype == torch.bool else values.numpy()


def read(path: Path) -> SparseMatrix:
    """The matrix in a Matrix Market file (`.mtx`, `.mtx.gz`) or one of `scipy.sparse.save_npz`.

    A pattern without values gets ones. Raises SparseError for a file that is neither.
    """
    import scipy.io
    import scipy.sparse as sparse

    if not path.name.endswith(SUFFIXES):
        raise SparseError(f"'{path.name}'", accepted=", ".join(SUFFIXES))
    if not path.is_file():
        raise SparseError(f"no file '{path}'")
    try:
        found = sparse.load_npz(path) if path.suffix == ".npz" else scipy.io.mmread(path)
    except (ValueError, OSError, KeyError, EOFError, OverflowError) as error:
        raise SparseError(f"'{path.name}' cannot be read: {error}") from error
    if not sparse.issparse(found):
        found = sparse.csr_array(found)
    return from_scipy(found)


def from_any(matrix: Any) -> SparseMatrix:
    """A SparseMatrix, checked, or what one of the functions here makes of a matrix or a path.

    A `Packed` one of any layout is unpacked; of a pruned `Weight` the kept values are taken.
    """
    if isinstance(matrix, SparseMatrix):
        return matrix.canonical()
    if isinstance(matrix, Packed):
        return unpack(matrix).canonical()
    if isinstance(matrix, Weight):
        return kept_values(matrix)
    if isinstance(matrix, str | Path):
        return read(Path(matrix))
    module = type(matrix).__module__.partition(".")[0]
    return from_torch(matrix) if module == "torch" else from_scipy(matrix)


def _dtypes() -> str:
    return ", ".join(str(e.dtype) for e in ELEMENTS.values() if e.name != "bf16")
