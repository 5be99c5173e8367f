"""Element types of sparse matrices: how each is held in numpy, and what its sums are held in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.dialects.spgemm.errors import SparseError

Values = NDArray[Any]


@dataclass(frozen=True)
class Element:
    """An element type.

    name: MLIR's. dtype: numpy's; u16 holds the bits of bf16, which numpy does not have.
    sum: name of the type that products of two of these are added up in, and the results have.
    """

    name: str
    dtype: np.dtype[Any]
    sum: str

    @property
    def is_float(self) -> bool:
        """Whether it has fractions."""
        return self.name.startswith(("f", "bf"))


def _elements() -> Mapping[str, Element]:
    rows = (
        ("f64", np.float64, "f64"),
        ("f32", np.float32, "f32"),
        ("f16", np.float16, "f32"),
        ("bf16", np.uint16, "f32"),
        ("i64", np.int64, "i64"),
        ("i32", np.int32, "i32"),
        ("i8", np.int8, "i32"),
    )
    return {name: Element(name, np.dtype(dtype), total) for name, dtype, total in rows}


ELEMENTS = _elements()
"""Name -> element type, in the order of documentation."""

_OF_DTYPE = {element.dtype: element for element in ELEMENTS.values()}


def element_of(values: Values) -> Element:
    """The element type of an array; raises SparseError for a dtype that none has."""
    found = _OF_DTYPE.get(values.dtype)
    if found is None:
        raise SparseError(
            f"values of dtype {values.dtype}",
            accepted=", ".join(f"{one.dtype} ({name})" for name, one in ELEMENTS.items()),
        )
    return found


def widened(values: Values) -> Values:
    """The values in the type of their sums: f16 and bf16 as f32, i8 as i32, others as they are."""
    element = element_of(values)
    if element.name == "bf16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(ELEMENTS[element.sum].dtype, copy=False)


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bf16, ties to even; a NaN stays one."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 0x40
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16)
