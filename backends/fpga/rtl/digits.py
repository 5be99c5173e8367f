"""Integer elements as sums of digits: what a table of few entries can hold.

`T(c) = sum_p coefficients[p] * values[d_p(c)]` with a digit `d_p` of each plane. A bipolar integer
has the digits -1 and 1, a two's complement integer has 0 and 1 with a negative coefficient for the
sign, a ternary one has a single digit of three values. A table holds the sums of some activations
times every choice of digits, so a product is as many look-ups as there are planes, added up.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.backends.fpga.rtl.errors import RtlError
from nybble.dialects.lowbit.formats.element import Bipolar, Element, Ternary, Uniform

Integers = NDArray[np.integer[Any]]
MAX_PLANES = 8


@dataclass(frozen=True)
class Digits:
    """values: what a digit means, consecutive or with steps of two; coefficients: of the planes."""

    values: tuple[int, ...]
    coefficients: tuple[int, ...]

    @property
    def radix(self) -> int:
        """How many values a digit has."""
        return len(self.values)

    @property
    def step(self) -> int:
        """The difference of two neighbouring values."""
        return self.values[1] - self.values[0]

    @property
    def planes(self) -> int:
        """How many digits an integer has."""
        return len(self.coefficients)

    @property
    def bits(self) -> int:
        """Bits of the digits of one integer, each in bits of its own."""
        return self.planes * (self.radix - 1).bit_length()

    @property
    def low(self) -> int:
        """The least integer."""
        return sum(min(c * v for v in self.values) for c in self.coefficients)

    @property
    def high(self) -> int:
        """The greatest integer."""
        return sum(max(c * v for v in self.values) for c in self.coefficients)

    def split(self, integers: Integers) -> NDArray[np.int64]:
        """The digits of integers of any shape: [..., planes], each in 0 .. radix - 1.

        Raises RtlError for an integer that is no such sum.
        """
        if self.radix > 2:
            digits = np.asarray(integers, np.int64)[..., None] - self.values[0]
        else:
            codes = (np.asarray(integers, np.int64) - self._least()) // self.step
            flipped = sum(1 << p for p, c in enumerate(self.coefficients) if c < 0)
            digits = (codes[..., None] >> np.arange(self.planes) & 1) ^ (
                flipped >> np.arange(self.planes) & 1
            )
        wrong = np.asarray(integers)[np.asarray(self.join(digits) != integers)]
        if wrong.size or (digits.size and not 0 <= digits.min() <= digits.max() < self.radix):
            outside = wrong[0] if wrong.size else np.asarray(integers).flat[0]
            raise RtlError(f"{outside} is no weight of this element", accepted=self._range())
        return digits

    def join(self, digits: NDArray[np.int64]) -> NDArray[np.int64]:
        """The integers of digits [..., planes]."""
        values = digits * self.step + self.values[0]
        return (values * np.asarray(self.coefficients)).sum(-1)

    def _least(self) -> int:
        return self.low

    def _range(self) -> str:
        return f"{self.low} to {self.high}" + (" in steps of 2" if self.step == 2 else "")


def digits_of(element: Element) -> Digits:
    """The digits of an element; raises RtlError for one that is no small sum of digits."""
    if isinstance(element, Ternary):
        return Digits((-1, 0, 1), (1,))
    if isinstance(element, Bipolar):
        return Digits((-1, 1), tuple(1 << p for p in range(element.width)))
    if isinstance(element, Uniform) and element.offset in (0, 2 ** (element.width - 1)):
        powers = [1 << p for p in range(element.width)]
        if element.offset:
            powers[-1] = -powers[-1]
        return Digits((0, 1), tuple(powers))
    raise RtlError(
        f"a weight of element '{element.spell}' is no sum of digits that a table could hold",
        accepted="bipolar, ternary, unsigned and two's complement integers",
    )
