"""The bit-serial element: a weight as a few signed powers of two, one of them in a cycle.

BitMoD (Chen et al., arXiv 2411.11745) has one representation for integers and for small floats with
special values: terms of a sign, an exponent and a mantissa bit, which shift an activation, negate
it, or leave it out. A special value is the choice of a group.
"""

from functools import cache

import numpy as np
from xdsl.dialects.builtin import IntAttr
from xdsl.irdl import irdl_attr_definition
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.fpga.attrs import Integers, TilingAttr, ValuesAttr

Term = tuple[int, int]
"""A sign, -1, 0 or 1, and an exponent."""
NOTHING: Term = (0, 0)


def terms_of(value: int) -> tuple[Term, ...]:
    """The fewest signed powers of two whose sum is an integer, largest first.

    They are the digits of its non-adjacent form (Reitwiesner, 1960).
    """
    found: list[Term] = []
    exponent = 0
    while value:
        if value & 1:
            sign = 2 - (value & 3)
            found.append((sign, exponent))
            value -= sign
        value >>= 1
        exponent += 1
    return tuple(reversed(found))


@cache
def _decoded(values: tuple[int, ...]) -> tuple[tuple[Term, ...], ...]:
    found = [terms_of(value) for value in values]
    most = max(1, *map(len, found))
    return tuple(one + (NOTHING,) * (most - len(one)) for one in found)


@irdl_attr_definition
class SerialAttr(ValuesAttr):
    """A term of a weight in a cycle: fields are codes, of one of `choices` tables of `values`.

    values: those of each table, one after the other; which table it is, a row says once for all
    codes of a word.
    """

    name = "fpga.serial"
    FIELDS = ("values", "choices")
    choices: IntAttr

    @property
    def codes(self) -> int:
        """Values of a table."""
        return len(self.values.data) // self.choices.data

    @property
    def field_bits(self) -> int:
        """See `ElementAttr`."""
        return max((self.codes - 1).bit_length(), 1)

    @property
    def width(self) -> int:
        """See `ElementAttr`."""
        return 1

    @property
    def fields(self) -> int:
        """See `ElementAttr`."""
        return 1

    @property
    def index_bits(self) -> int:
        """See `ElementAttr`: the number of a table."""
        return (self.choices.data - 1).bit_length()

    def index_lanes(self, tiling: TilingAttr) -> int:
        """See `ElementAttr`."""
        return tiling.high.data if self.choices.data > 1 else 0

    @property
    def decoded(self) -> tuple[tuple[Term, ...], ...]:
        """The terms of each value, `terms` of them."""
        return _decoded(self.numbers("values"))

    @property
    def terms(self) -> int:
        """See `ElementAttr`: as many as the value needs that needs most."""
        return len(self.decoded[0])

    @property
    def largest_exponent(self) -> int:
        """Places that an activation is shifted by at most."""
        return max(exponent for terms in self.decoded for _, exponent in terms)

    def encode(self, codes: Integers) -> Integers:
        """See `ElementAttr`."""
        return np.maximum(codes, 0)

    def dots(self, held: Integers, fields: Integers) -> Integers:
        """See `ElementAttr`: held are columns [tiles, lanes, wide]; term by term."""
        decoded = np.asarray(self.decoded)[fields[:, :, 0]]
        signs, exponents = decoded[..., 0], decoded[..., 1]
        shifted = held[:, None, :, None, :] << exponents[..., None]
        return (signs[..., None] * shifted).sum(axis=(2, 3))

    def verify(self) -> None:
        super().verify()
        if self.choices.data not in (1, 2, 4) or len(self.values.data) % self.choices.data:
            raise VerifyException(
                f"{len(self.values.data)} values in {self.choices.data} tables; accepted: 1, 2 or "
                "4 tables of as many values each"
            )
