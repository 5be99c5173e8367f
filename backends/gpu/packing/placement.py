"""Where the bits of codes lie in words of a lane.

A register of the A operand of `mma.m16n8k16` holds two 16-bit floats, of columns that are
neighbours. Where codes are put together with masks ("apart"), two neighbours lie 16 bits apart in a
word, so that one `lop3` serves both; the registers of columns k and k + 8 of one row are 8 bits
apart. Where a byte permutation looks codes up, or puts bytes together, neighbours lie beside each
other.

Codes of a width that is no power of two lie in planes of 4, 2 and 1 bits.
"""

from dataclasses import dataclass
from functools import cached_property

WORD = 32
"""Bits of a word."""


@dataclass(frozen=True)
class Plane:
    """Bits `low .. low + width` of every code. first: index of its first word in a tile's."""

    width: int
    low: int
    first: int


@dataclass(frozen=True)
class Placement:
    """Codes of `bits` bits of so many fragments of 16 rows and 16 columns in words of a lane."""

    bits: int
    fragments: int
    apart: bool = True

    def __post_init__(self) -> None:
        assert self.apart or all(plane.width <= WORD // 2 for plane in self.planes)

    @property
    def is_full(self) -> bool:
        """Whether the words of every plane are."""
        return all(plane.width * self.fragments % 4 == 0 for plane in self.planes)

    @property
    def words(self) -> int:
        """Words of a lane for one tile, the fragments side by side of 16 columns."""
        return self.bits * self.fragments // 4

    @cached_property
    def planes(self) -> tuple[Plane, ...]:
        """The planes, the widest and most significant first."""
        found: list[Plane] = []
        left, first = self.bits, 0
        for width in (8, 4, 2, 1):
            if left >= width:
                left -= width
                found.append(Plane(width, left, first))
                first += width * self.fragments // 4
        return tuple(found)

    def position(self, plane: Plane, fragment: int, register: int) -> tuple[int, int]:
        """The word and the bit where the first code of a register begins in a plane."""
        if not self.apart:
            word, place = divmod(8 * fragment + 2 * register, WORD // plane.width)
            return plane.first + word, place * plane.width
        row, upper = 2 * fragment + register % 2, register // 2
        word, rest = divmod(row, 8 // plane.width)
        return plane.first + word, rest * plane.width + 8 * upper

    @property
    def upper(self) -> int:
        """Bits from the codes of columns k to those of columns k + 8 of a row."""
        return self.position(self.planes[0], 0, 2)[1] - self.position(self.planes[0], 0, 0)[1]

    def distance(self, plane: Plane) -> int:
        """Bits from the first code of a register to its second."""
        return 16 if self.apart else plane.width


def fewest_fragments(bits: int) -> int:
    """The least number of fragments whose words are full."""
    return max(1, 4 // (bits & -bits))
