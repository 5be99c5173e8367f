"""The scalar types of PTX, how registers hold them, and as what numpy sees them."""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

UNSIGNED: dict[int, type[Any]] = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
SIGNED: dict[int, type[Any]] = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
FLOAT: dict[int, type[Any]] = {16: np.float16, 32: np.float32, 64: np.float64}
WIDE = np.complex128
"""Stands for 16 bytes that are moved at once."""

_SMALL_FLOATS = {"bf16": 16, "e4m3": 8, "e5m2": 8, "tf32": 32}
_PACKED = {
    "f32x2": ("f32", 2),
    "f16x2": ("f16", 2),
    "bf16x2": ("bf16", 2),
    "e4m3x2": ("e4m3", 2),
    "e5m2x2": ("e5m2", 2),
    "e2m1x2": ("e2m1", 2),
    "s16x2": ("s16", 2),
    "u16x2": ("u16", 2),
}


@dataclass(frozen=True)
class Scalar:
    """A type: its kind ("pred", "b", "u", "s", "f", or the name of a small float) and its bits.

    lanes: how many values a packed type holds; `element` is the type of one.
    """

    name: str
    kind: str
    bits: int
    lanes: int = 1

    @cached_property
    def bytes(self) -> int:
        """Bytes in memory."""
        return self.bits // 8

    @cached_property
    def storage(self) -> type[Any]:
        """What numpy calls the bits of it."""
        return np.bool_ if self.kind == "pred" else UNSIGNED[self.bits]

    @cached_property
    def dtype(self) -> type[Any]:
        """What numpy calls it; the bits of it for what numpy has no type for."""
        if self.lanes > 1:
            return self.storage
        tables = {"s": SIGNED, "f": FLOAT}
        return tables.get(self.kind, {}).get(self.bits, self.storage)

    @cached_property
    def is_float(self) -> bool:
        """Whether it is a number with an exponent."""
        return self.kind not in ("pred", "b", "u", "s")

    @cached_property
    def element(self) -> "Scalar":
        """Of a packed type, the type of one value."""
        return scalar(_PACKED[self.name][0]) if self.lanes > 1 else self


@cache
def scalar(name: str) -> Scalar:
    """The type of that name, without its dot; KeyError if there is none."""
    if name == "pred":
        return Scalar(name, "pred", 1)
    if name in _PACKED:
        element, lanes = _PACKED[name]
        bits = 8 if element == "e2m1" else scalar(element).bits * lanes
        return Scalar(name, scalar(element).kind if element != "e2m1" else "e2m1", bits, lanes)
    if name in _SMALL_FLOATS:
        return Scalar(name, name, _SMALL_FLOATS[name])
    if name == "e2m1":
        return Scalar(name, name, 8)
    kind, width = name[:1], name[1:]
    if kind in "busf" and width.isdigit() and int(width) in (8, 16, 32, 64, 128):
        return Scalar(name, kind, int(width))
    raise KeyError(name)


def is_type(name: str) -> bool:
    """Whether a modifier names a type."""
    try:
        scalar(name)
    except KeyError:
        return False
    return True
