"""Element kinds: what the code of one weight means, T(c) in `W = S * T(c) + Z`.

Each kind is frozen data. `bits` is the width of a code, `spell` its text in a format's spelling.
T is `c - zero_point` if `table` is None, else `table[c]`. Elements with a table of their own are in
`table_element`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from nybble.dialects.lowbit.formats.arrays import F32, frozen_table
from nybble.dialects.lowbit.formats.errors import FormatError


class Element(ABC):
    """What one code means."""

    @property
    @abstractmethod
    def spell(self) -> str:
        """Text of this element in a format's spelling."""

    @property
    @abstractmethod
    def bits(self) -> int:
        """Bits of one code (of one whole value for a plain float)."""

    @property
    def has_codes(self) -> bool:
        """Whether a weight of this element has one code of at most 8 bits per value."""
        return True

    @property
    def zero_point(self) -> int:
        """The code that means zero; meaningless for an element with a table."""
        return 0

    @property
    def table(self) -> F32 | None:
        """T as an array, None if affine: f32 [2**bits]; [choices, 2**bits] if a group chooses."""
        return None

    @property
    def plain_table(self) -> F32 | None:
        """`table` as a weight carries it: one table alone has no axis of choices."""
        table = self.table
        return table[0] if table is not None and table.ndim == 2 and len(table) == 1 else table

    @property
    def choices(self) -> int:
        """How many tables a group chooses from."""
        return 1

    @property
    def unit(self) -> float:
        """The factor of the table that the scale takes over, a power of two."""
        return 1.0


@dataclass(frozen=True)
class PlainFloat(Element):
    """Unquantized f32, f16 or bf16."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in ("f32", "f16", "bf16"):
            raise FormatError(f"unknown plain float '{self.name}'", accepted="f32, f16, bf16")

    @property
    def spell(self) -> str:
        return self.name

    @property
    def bits(self) -> int:
        return 32 if self.name == "f32" else 16

    @property
    def has_codes(self) -> bool:
        return False


@dataclass(frozen=True)
class Uniform(Element):
    """Integers `c - offset` of 1..8 bits: offset 0 is unsigned, 2**(width-1) is signed.

    narrow: the quantizer leaves the most negative code unused, so that the range is symmetric.
    """

    width: int
    offset: int = 0
    narrow: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 8:
            raise FormatError(f"an integer of {self.width} bits", accepted="1 to 8 bits")
        if not 0 <= self.offset < 2**self.width:
            raise FormatError(
                f"zero point {self.offset} of a {self.width}-bit integer",
                accepted=f"0 to {2**self.width - 1}",
            )
        if self.narrow and (self.offset != 2 ** (self.width - 1) or self.width == 1):
            raise FormatError(
                f"narrow range of {self.width} bits with zero point {self.offset}",
                accepted="narrow with a signed integer of 2 to 8 bits",
            )

    @property
    def spell(self) -> str:
        if self.offset and self.offset == 2 ** (self.width - 1):
            return f"i{self.width}" + (".narrow" if self.narrow else "")
        return f"u{self.width}" + (f"-{self.offset}" if self.offset else "")

    @property
    def bits(self) -> int:
        return self.width

    @property
    def zero_point(self) -> int:
        return self.offset


@dataclass(frozen=True)
class Bipolar(Element):
    """Sums of `width` signed bits: the odd values -(2**width - 1) .. 2**width - 1 (bipolar-INT)."""

    width: int

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 8:
            raise FormatError(f"bipolar integer of {self.width} bits", accepted="1 to 8 bits")

    @property
    def spell(self) -> str:
        return f"bip{self.width}"

    @property
    def bits(self) -> int:
        return self.width

    @cached_property
    def _table(self) -> F32:
        return frozen_table(np.arange(2**self.width, dtype=np.float32) * 2 - (2**self.width - 1))

    @property
    def table(self) -> F32:
        return self._table


@dataclass(frozen=True)
class Ternary(Element):
    """-1, 0, 1 as codes 0, 1, 2."""

    @property
    def spell(self) -> str:
        return "ternary"

    @property
    def bits(self) -> int:
        return 2

    @property
    def zero_point(self) -> int:
        return 1


@dataclass(frozen=True)
class TwoDigits(Element):
    """Signed integers of two 8-bit digits, `256 * high + low`, for activations.

    Both digits are in -128 .. 127, and `high` in -127 .. 127, so that a product with a low-bit
    weight is two 8-bit dot products. A value has no single code of 8 bits.
    """

    LARGEST: ClassVar[int] = 127 * 256

    @property
    def spell(self) -> str:
        return "i8x2"

    @property
    def bits(self) -> int:
        return 16

    @property
    def has_codes(self) -> bool:
        return False


@dataclass(frozen=True)
class EntropyCoded(Element):
    """bf16 whose exponents are Huffman coded, lossless (DFloat11, arXiv 2504.11651)."""

    @property
    def spell(self) -> str:
        return "bf16.huffman"

    @property
    def bits(self) -> int:
        return 16

    @property
    def has_codes(self) -> bool:
        return False
