"""Where the bits of codes lie in words, so that a mask makes a pair of floats of a pair of codes.

A register of the A operand of `mma.m16n8k16` holds two 16-bit floats. Two codes that lie 16 bits
apart become one with a single `lop3`: `word & mask | magic`, where the magic number sets the
exponents so that the code counts units of the mantissa: the float is `offset + code` exactly. The
offset is not subtracted: it is the same along a row, so that `offset * sum(x)` leaves the sum of a
group at its end. (The trick with magic numbers: Kim et al., arXiv 2211.10017; AWQ and Marlin
subtract instead.)

Codes of a width that is no power of two lie in planes of 4, 2 and 1 bits. A plane's word holds in
each half 8 / width classes, which are rows of the fragment: the registers of columns k and k + 8 of
one row are 8 bits apart, as they need the same offset.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

MANTISSA = {"f16": 10, "bf16": 7}
EXPONENT_BIAS = {"f16": 15, "bf16": 127}
FloatType = Literal["f16", "bf16"]
_CLOSEST = {1: 7}
"""log2 of the largest offset of a code of so many bits, in units of its range; 6 for the others."""


@dataclass(frozen=True)
class Plane:
    """Bits `low .. low + width` of every code. first: index of its first word in a tile's."""

    width: int
    low: int
    first: int


@dataclass(frozen=True)
class Take:
    """Bits of a register: those of `mask` of a word of a tile that was moved right by `shift`.

    A shift of less than 0 is to the left. mask: 16 bits, of both halves.
    """

    word: int
    shift: int
    mask: int


@dataclass(frozen=True)
class Placement:
    """Codes of `bits` bits of so many fragments of 16 rows and 16 columns in words of a lane."""

    bits: int
    fragments: int
    dtype: FloatType

    def __post_init__(self) -> None:
        assert all(plane.width * self.fragments % 4 == 0 for plane in self.planes)

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
        """The word and the bit in its halves where the code of a register begins in a plane."""
        row, upper = 2 * fragment + register % 2, register // 2
        word, rest = divmod(row, 8 // plane.width)
        return plane.first + word, rest * plane.width + 8 * upper

    def unit(self, fragment: int, register: int) -> int:
        """The bit of the mantissa that is worth 1 in a register: its code begins there."""
        room = MANTISSA[self.dtype] - self.bits
        start = max(0, room - _CLOSEST.get(self.bits, 6))
        widest = self.planes[0].width
        window = 1 << (room - start + widest).bit_length() - 1
        _, bit = self.position(self.planes[0], fragment, register % 2)
        return start + bit % window

    def offset(self, fragment: int, register: int) -> float:
        """What a register's floats have above their codes."""
        return 2.0 ** (MANTISSA[self.dtype] - self.unit(fragment, register))

    def magic(self, fragment: int, register: int) -> int:
        """The bits of two floats of that offset."""
        mantissa = MANTISSA[self.dtype]
        exponent = EXPONENT_BIAS[self.dtype] + mantissa - self.unit(fragment, register)
        return (exponent << mantissa) * 0x10001

    def takes(self, fragment: int, register: int) -> tuple[Take, ...]:
        """What a register's codes are put together of."""
        unit = self.unit(fragment, register)
        made: list[Take] = []
        for plane in self.planes:
            word, bit = self.position(plane, fragment, register)
            at = unit + plane.low
            made.append(Take(word, bit - at, (2**plane.width - 1) << at))
        return tuple(made)


def fewest_fragments(bits: int) -> int:
    """The least number of fragments of which words are full and a lane's tiles 16 bytes."""
    narrowest = bits & -bits
    return max(1, 4 // narrowest)


def fits(bits: int, dtype: FloatType) -> bool:
    """Whether codes of so many bits fit in the mantissa."""
    return bits <= MANTISSA[dtype]
