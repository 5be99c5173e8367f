"""Semirings: what a product adds with, multiplies with, and takes an absent entry for.

The definitions are those of the GraphBLAS C API 2.1, sections 3.5 and 4.3: plus-times is linear
algebra, or-and reaches, min-plus is the shortest path.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nybble.dialects.spgemm.elements import Values, element_of
from nybble.dialects.spgemm.errors import SparseError


@dataclass(frozen=True)
class Semiring:
    """add and multiply work on arrays; `elements` are the names of the types it is defined for."""

    name: str
    add: np.ufunc
    multiply: np.ufunc
    elements: tuple[str, ...]

    def zero(self, dtype: np.dtype[Any]) -> Any:
        """The neutral element of `add`, which an entry that is not stored has."""
        if self.name != "min_plus":
            return dtype.type(0)
        return dtype.type(np.inf) if dtype.kind == "f" else np.iinfo(dtype).max

    def check(self, values: Values) -> None:
        """Raises SparseError for values that this semiring is not defined for.

        plus_times takes NaN and infinities as IEEE 754 does, of stored entries alone: an entry that
        is not stored never meets one. min_plus has no NaN and no -inf, whose sum with +inf would be
        NaN. or_and has 0 and 1 only.
        """
        element = element_of(values)
        if element.name not in self.elements:
            raise SparseError(f"{self.name} of {element.name}", accepted=", ".join(self.elements))
        if self.name == "or_and" and np.any((values != 0) & (values != 1)):
            raise SparseError("or_and of a value that is neither 0 nor 1", accepted="0 and 1")
        if self.name == "min_plus" and element.is_float:
            bad = np.isnan(values) | np.isneginf(values)
            if bad.any():
                raise SparseError(f"min_plus of {values[bad][0]}", accepted="numbers and +inf")


SEMIRINGS: Mapping[str, Semiring] = {
    one.name: one
    for one in (
        Semiring(
            "plus_times",
            np.add,
            np.multiply,
            ("f64", "f32", "f16", "bf16", "i64", "i32", "i8"),
        ),
        Semiring("or_and", np.bitwise_or, np.bitwise_and, ("i8",)),
        Semiring("min_plus", np.minimum, np.add, ("f64", "f32", "i64", "i32")),
    )
}
"""Name -> semiring. min_plus of integers saturates nothing: keep weights far from the ends."""


def semiring(name: str) -> Semiring:
    """The semiring of that name; raises SparseError."""
    if name not in SEMIRINGS:
        raise SparseError(f"unknown semiring '{name}'", accepted=", ".join(SEMIRINGS))
    return SEMIRINGS[name]
