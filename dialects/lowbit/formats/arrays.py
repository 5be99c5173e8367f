"""Array types of the number formats, and the check that an input matrix is one."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.errors import FormatError

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
LARGEST = 1e17


def frozen_table(values: npt.ArrayLike) -> F32:
    """A read-only f32 array."""
    table = np.array(values, dtype=np.float32)
    table.setflags(write=False)
    return table


def largest(numbers: npt.NDArray[np.floating[Any]], count: int) -> npt.NDArray[np.bool_]:
    """The `count` largest of an array, those that come first among equals: bool of its shape."""
    flat = numbers.reshape(-1)
    if not 0 < count < flat.size:
        return np.full(numbers.shape, count > 0)
    edge = np.partition(flat, flat.size - count)[flat.size - count]
    chosen = flat > edge
    chosen[np.flatnonzero(flat == edge)[: count - int(chosen.sum())]] = True
    return chosen.reshape(numbers.shape)


def check_magnitude(values: F32) -> None:
    """Raise FormatError for magnitudes whose squared errors would leave f32."""
    if values.size and (worst := float(np.abs(values).max())) > LARGEST:
        raise FormatError(f"cannot quantize {worst:.6g}", accepted=f"magnitudes up to {LARGEST:g}")


def check_type(values: F32) -> None:
    """Raise FormatError unless `values` is an f32 matrix."""
    if values.ndim != 2 or values.dtype != np.float32:
        raise FormatError(
            f"cannot quantize a {values.dtype} array of shape {values.shape}",
            accepted="a float32 array of shape (rows, cols)",
        )


def check_matrix(values: F32) -> None:
    """Raise FormatError unless `values` is an f32 matrix of finite numbers."""
    check_type(values)
    finite = np.isfinite(values)
    if not finite.all():
        row, col = (int(index) for index in np.argwhere(~finite)[0])
        raise FormatError(
            f"cannot quantize {values[row, col]} at row {row}, column {col}",
            accepted="finite numbers",
        )
