"""How registers of floats are put together of the bits of codes, for each meaning of a code.

Integers go into the mantissa of a float whose exponent makes a unit of the mantissa worth 1: then
`word & mask | magic` is the float `offset + code` exactly (Kim et al., arXiv 2211.10017). The
offset is the same along a row, because columns k and k + 8 of a row have it in common, so it may be
left in: it adds `offset * sum(x)` to a sum of products. Small floats go into the exponent and
mantissa of a float of the same kind, whose larger bias is a factor of all values.
"""

from dataclasses import dataclass
from typing import Literal

from nybble.backends.gpu.packing.placement import Placement

FloatType = Literal["f16", "bf16"]
MANTISSA = {"f16": 10, "bf16": 7}
EXPONENT_BIAS = {"f16": 15, "bf16": 127}
_CLOSEST = {1: 7}
"""log2 of the largest offset of a code of so many bits, in units of its range; 6 for the others."""


@dataclass(frozen=True)
class Take:
    """Bits of a register: those of `mask` of a word of a tile that was moved right by `shift`.

    A shift of less than 0 is to the left. mask: 16 bits, of both halves.
    """

    word: int
    shift: int
    mask: int


@dataclass(frozen=True)
class Integers:
    """Codes as `offset + code` in the mantissa of floats."""

    placement: Placement
    dtype: FloatType

    def unit(self, fragment: int, register: int) -> int:
        """The bit of the mantissa that is worth 1 in a register: its code begins there."""
        placement = self.placement
        room = MANTISSA[self.dtype] - placement.bits
        start = max(0, room - _CLOSEST.get(placement.bits, 6))
        widest = placement.planes[0]
        window = 1 << (room - start + widest.width).bit_length() - 1
        _, bit = placement.position(widest, fragment, register % 2)
        return start + bit % window

    def offset(self, fragment: int, register: int) -> float:
        """What a register's floats have above their codes."""
        return 2.0 ** (MANTISSA[self.dtype] - self.unit(fragment, register))

    def magic(self, fragment: int, register: int) -> int:
        """The bits of two floats of that offset."""
        mantissa = MANTISSA[self.dtype]
        exponent = EXPONENT_BIAS[self.dtype] + mantissa - self.unit(fragment, register)
        return (exponent << mantissa) * 0x10001

    def takes(self, fragment: int, register: int) -> list[Take]:
        """What a register's codes are put together of."""
        unit, bits = self.unit(fragment, register), self.placement.bits
        return taken(self.placement, fragment, register, 0, bits, unit)


@dataclass(frozen=True)
class Floats:
    """Codes as floats of a sign, an exponent and `mantissa` bits."""

    placement: Placement
    mantissa: int
    dtype: FloatType

    def takes(self, fragment: int, register: int) -> list[Take]:
        """What a register's codes are put together of."""
        sign = self.placement.bits - 1
        at = MANTISSA[self.dtype] - self.mantissa
        low = taken(self.placement, fragment, register, 0, sign, at)
        return low + taken(self.placement, fragment, register, sign, sign + 1, 15)


def taken(
    placement: Placement, fragment: int, register: int, low: int, high: int, at: int
) -> list[Take]:
    """Bits `low .. high` of a register's codes, moved to bit `at`."""
    made: list[Take] = []
    for plane in placement.planes:
        first, last = max(low, plane.low), min(high, plane.low + plane.width)
        if first < last:
            word, bit = placement.position(plane, fragment, register)
            target = at + first - low
            mask = (2 ** (last - first) - 1) << target
            made.append(Take(word, bit + first - plane.low - target, mask))
    return made
