"""Four-way integer dot products of packed codes with int8 activations, per instruction set.

A word is 16 rows of one packed vector: i32 lanes, each with 4 columns' codes in every plane. The
activation word is the 4 columns' int8 values, equal for all rows. Both forms are exact, so they
agree bit for bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, i8, i32, vec
from nybble.backends.cpu.packing import LANES

WORDS = vec(LANES, i32)
BYTES = vec(4 * LANES, i8)
Activation: TypeAlias = Sequence[Value]


@dataclass(frozen=True)
class IntDot(ABC):
    """Sums of code * activation for codes of `width` bits in `8 // width` planes."""

    width: int

    @property
    def planes(self) -> int:
        """Codes in a byte."""
        return 8 // self.width

    @abstractmethod
    def start(self, b: KernelBuilder, initial: Value) -> list[Value]:
        """Accumulators whose total is `initial` (i32 lanes)."""

    @abstractmethod
    def activation(self, b: KernelBuilder, word: Value) -> Activation:
        """An i32 of 4 int8 activations, made ready for `step`."""

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
    """`vpdpbusd`: codes are masked where they lie, and each plane's sum is shifted once."""

    intrinsic: str

    def start(self, b: KernelBuilder, initial: Value) -> list[Value]:
        """See IntDot."""
        return [initial] + [b.const(0, WORDS)] * (self.planes - 1)

    def activation(self, b: KernelBuilder, word: Value) -> Activation:
        """See IntDot."""
        return [b.bitcast(b.broadcast(word, LANES), BYTES)]

    def step(
        self, b: KernelBuilder, sums: Sequence[Value], word: Value, xs: Sequence[Activation]
    ) -> list[Value]:
        """See IntDot."""
        added: list[Value] = []
        for plane, (total, x) in enumerate(zip(sums, xs, strict=True)):
            codes = b.bitcast(word, BYTES)
            if self.planes > 1:
                mask = ((1 << self.width) - 1) << (plane * self.width)
                codes = codes & (mask - 256 if mask > 127 else mask)
            added.append(b.intrinsic(self.intrinsic, (total, codes, x[0]), WORDS))
        return added

    def total(self, b: KernelBuilder, sums: Sequence[Value]) -> Value:
        """See IntDot."""
        result = sums[0]
        for plane, one in enumerate(sums[1:], 1):
            result = result + (one >> plane * self.width)
        return result


@dataclass(frozen=True)
class GenericDot(IntDot):
    """Upstream operations alone: each column's codes are shifted out and multiplied as i32."""

    def start(self, b: KernelBuilder, initial: Value) -> list[Value]:
        """See IntDot."""
        return [initial]

    def activation(self, b: KernelBuilder, word: Value) -> Activation:
        """See IntDot."""
        columns = [(word << 24 - 8 * j) >> 24 for j in range(4)]
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


def int_dot(isa: Isa, width: int) -> IntDot:
    """The form for an instruction set."""
    return VnniDot(width, isa.int8_dot) if isa.int8_dot else GenericDot(width)
