"""Four-way integer dot products of packed codes with int8 activations, per instruction set.

A word is 16 rows of one packed vector: i32 lanes, each with 4 columns' codes in every plane. An
activation word is one digit of 4 columns, int8, equal for all rows; an activation of two digits is
256 * the first + the second. Both forms are exact modulo 2^32, so they agree bit for bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, i8, i32, vec
from nybble.backends.cpu.tile_layout import LANES

WORDS = vec(LANES, i32)
BYTES = vec(4 * LANES, i8)
Activation: TypeAlias = Sequence[Value]
DIGIT_BITS = 8


@dataclass(frozen=True)
class IntDot(ABC):
    """Sums of code * activation for codes of `width` bits in `8 // width` planes.

    digits: words of an activation, the most significant first.
    """

    width: int
    digits: int

    @property
    def planes(self) -> int:
        """Codes in a byte."""
        return 8 // self.width

    @property
    def operations(self) -> float:
        """Instructions on vectors of 512 bits that a `step` takes: see `cost`."""
        return 4 * self.planes * 5  # a shift, a mask, a product of two micro-operations, a sum

    @property
    @abstractmethod
    def accumulators(self) -> int:
        """How many vectors `start` makes."""

    @abstractmethod
    def start(self, b: KernelBuilder, initial: Value) -> list[Value]:
        """Accumulators whose total is `initial` (i32 lanes)."""

    @abstractmethod
    def activation(self, b: KernelBuilder, words: Sequence[Value]) -> Activation:
        """An i32 of 4 columns for each digit, made ready for `step`."""

    @abstractmethod
    def step(
        self, b: KernelBuilder, sums: Sequence[Value], word: Value, xs: Sequence[Activation]
    ) -> list[Value]:
        """Add one word (i32 lanes) times one activation for each plane."""

    @abstractmethod
    def total(self, b: KernelBuilder, sums: Sequence[Value]) -> Value:
        """The sums as i32 lanes."""


@dataclass(frozen=True)
class VnniDot(IntDot):
    """`vpdpbusd`: codes are masked where they lie, and each plane's sum is shifted once.

    Accumulators are [plane][digit], the last of plane 0 starting at the initial value.
    """

    intrinsic: str

    @property
    def operations(self) -> float:
        """See IntDot."""
        return self.planes * (self.digits + (self.planes > 1))

    @property
    def accumulators(self) -> int:
        """See IntDot."""
        return self.planes * self.digits

    def start(self, b: KernelBuilder, initial: Value) -> list[Value]:
        """See IntDot."""
        sums = [b.const(0, WORDS)] * self.accumulators
        sums[self.digits - 1] = initial
        return sums

    def activation(self, b: KernelBuilder, words: Sequence[Value]) -> Activation:
        """See IntDot."""
        return [b.bitcast(b.broadcast(word, LANES), BYTES) for word in words]

    def step(
        self, b: KernelBuilder, sums: Sequence[Value], word: Value, xs: Sequence[Activation]
    ) -> list[Value]:
        """See IntDot."""
        added: list[Value] = []
        for plane, x in enumerate(xs):
            codes = b.bitcast(word, BYTES)
            if self.planes > 1:
                mask = ((1 << self.width) - 1) << (plane * self.width)
                codes = codes & (mask - 256 if mask > 127 else mask)
            for digit, value in enumerate(x):
                total = sums[plane * self.digits + digit]
                added.append(b.intrinsic(self.intrinsic, (total, codes, value), WORDS))
        return added

    def total(self, b: KernelBuilder, sums: Sequence[Value]) -> Value:
        """See IntDot."""
        digits: list[Value] = []
        for digit in range(self.digits):
            first, *others = sums[digit :: self.digits]
            for plane, one in enumerate(others, 1):
                first = first + (one >> plane * self.width)
            digits.append(first)
        return _number(digits)


@dataclass(frozen=True)
class GenericDot(IntDot):
    """Upstream operations alone: each column's codes are shifted out and multiplied as i32."""

    @property
    def accumulators(self) -> int:
        """See IntDot."""
        return 1

    def start(self, b: KernelBuilder, initial: Value) -> list[Value]:
        """See IntDot."""
        return [initial]

    def activation(self, b: KernelBuilder, words: Sequence[Value]) -> Activation:
        """See IntDot."""
        columns = [_number([(word << 24 - 8 * j) >> 24 for word in words]) for j in range(4)]
        return [b.broadcast(column, LANES) for column in columns]

    def step(
        self, b: KernelBuilder, sums: Sequence[Value], word: Value, xs: Sequence[Activation]
    ) -> list[Value]:
        """See IntDot."""
        total = sums[0]
        for plane, x in enumerate(xs):
            for j, column in enumerate(x):
                shift = 8 * j + plane * self.width
                codes = word.shr(shift) if shift else word
                total = total + (codes & ((1 << self.width) - 1)) * column
        return [total]

    def total(self, b: KernelBuilder, sums: Sequence[Value]) -> Value:
        """See IntDot."""
        return sums[0]


def _number(digits: Sequence[Value]) -> Value:
    """The number of some digits, the most significant first."""
    number, *others = digits
    for digit in others:
        number = (number << DIGIT_BITS) + digit
    return number


def int_dot(isa: Isa, width: int, digits: int) -> IntDot:
    """The form for an instruction set."""
    if isa.int8_dot:
        return VnniDot(width, digits, isa.int8_dot)
    return GenericDot(width, digits)
