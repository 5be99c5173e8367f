"""Element kinds whose codes index a table: codebooks, small floats, BitMoD, vector codebooks.

The table of a small float whose values are all multiples of one `unit`, below 128 units, holds
integers and the scale takes the unit over, so that integer dot products apply.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nybble.dialects.lowbit.formats.arrays import F32, frozen_table
from nybble.dialects.lowbit.formats.element import Element
from nybble.dialects.lowbit.formats.errors import FormatError

_LARGEST = float(np.finfo(np.float32).max)


def _are_f32(values: tuple[float, ...]) -> bool:
    return all(abs(value) <= _LARGEST for value in values)


@dataclass(frozen=True)
class Codebook(Element):
    """A table of 2, 4, ..., 256 finite values; `name` is empty for one that is spelled out."""

    name: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.values) not in (2, 4, 8, 16, 32, 64, 128, 256):
            raise FormatError(
                f"a table of {len(self.values)} values", accepted="2, 4, 8, ..., 256 values"
            )
        largest = max(self.values)
        if not _are_f32(self.values) or largest <= 0 or largest == min(self.values):
            raise FormatError(
                f"the table {self.spell[:60]}",
                accepted="f32 values, at least one of them positive and not all the same",
            )

    @property
    def spell(self) -> str:
        return self.name or f"table[{','.join(repr(value) for value in self.values)}]"

    @property
    def bits(self) -> int:
        return len(self.values).bit_length() - 1

    @cached_property
    def _table(self) -> F32:
        return frozen_table(list(self.values))

    @property
    def table(self) -> F32:
        return self._table


@dataclass(frozen=True)
class SmallFloat(Element):
    """A sign, `exponent` and `mantissa` bits; subnormals; bias 2**(exponent-1) - 1.

    e4m3 is the "fn" kind (no infinities, all ones is NaN), e5m2 has infinities and NaNs as IEEE
    754 does, the smaller ones are all finite (OCP Microscaling Formats 1.0, section 5.3).
    """

    exponent: int
    mantissa: int

    def __post_init__(self) -> None:
        if (self.exponent, self.mantissa) not in ((2, 1), (3, 2), (2, 3), (4, 3), (5, 2)):
            raise FormatError(f"small float {self.spell}", accepted="e2m1, e3m2, e2m3, e4m3, e5m2")

    @property
    def spell(self) -> str:
        return f"e{self.exponent}m{self.mantissa}"

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def unit(self) -> float:
        # The smallest subnormal; e2m1 and e2m3 are then integers of magnitude 12 and 60.
        return float(2.0**-self.mantissa) if self.exponent == 2 else 1.0

    @cached_property
    def values(self) -> F32:
        """Value of each code: f32 [2**bits]; -0 decodes as 0 as in ggml's tables."""
        magnitude = np.arange(2 ** (self.bits - 1))
        field, fraction = magnitude >> self.mantissa, magnitude & (2**self.mantissa - 1)
        bias = 2 ** (self.exponent - 1) - 1
        lead = np.where(field == 0, 0.0, 1.0) + fraction / 2**self.mantissa
        positive = lead * 2.0 ** (np.maximum(field, 1) - bias)
        if self.exponent == 5:
            positive[field == 31] = np.where(fraction[field == 31] == 0, np.inf, np.nan)
        elif self.exponent == 4:
            positive[-1] = np.nan
        return frozen_table(np.concatenate([positive, 0.0 - positive]).astype(np.float32))

    @cached_property
    def _table(self) -> F32:
        return frozen_table(self.values / np.float32(self.unit))

    @property
    def table(self) -> F32:
        return self._table


_BITMOD_BASE = {3: (1.0, 2.0, 4.0), 4: (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)}


@dataclass(frozen=True)
class BitMod(Element):
    """FP3 or FP4 whose redundant negative zero is a special value that each group chooses.

    Source: BitMoD (HPCA 2025), table of extra-resolution and extra-asymmetry values.
    """

    width: int
    specials: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.width not in _BITMOD_BASE:
            raise FormatError(f"BitMoD of {self.width} bits", accepted="3 or 4 bits")
        if len(self.specials) not in (1, 2, 4) or not _are_f32(self.specials):
            raise FormatError(
                f"special values {self.specials}", accepted="1, 2 or 4 finite numbers"
            )

    @property
    def spell(self) -> str:
        return f"bitmod{self.width}[{','.join(repr(value) for value in self.specials)}]"

    @property
    def bits(self) -> int:
        return self.width

    @property
    def choices(self) -> int:
        return len(self.specials)

    @cached_property
    def _table(self) -> F32:
        base = _BITMOD_BASE[self.width]
        negative = tuple(-value for value in base)
        rows = [(0.0, *base, special, *negative) for special in self.specials]
        return frozen_table(rows)

    @property
    def table(self) -> F32:
        return self._table


_GRID_BITS = {
    "iq1_s": 1, "iq1_m": 1, "iq2_xxs": 2, "iq2_xs": 2, "iq2_s": 2, "iq3_xxs": 3, "iq3_s": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Grid(Element):
    """A vector codebook of ggml: one index names 4 or 8 values at once (IQ1, IQ2, IQ3 types)."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in _GRID_BITS:
            raise FormatError(f"unknown grid '{self.name}'", accepted=", ".join(_GRID_BITS))

    @property
    def spell(self) -> str:
        return f"grid.{self.name}"

    @property
    def bits(self) -> int:
        return _GRID_BITS[self.name]

    @property
    def has_codes(self) -> bool:
        return False
