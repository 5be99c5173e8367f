"""Counting the set bits of 32-bit lanes, per instruction set.

A lane is a weight row, a word of it 32 columns of one bit plane. Counts of many words are added up
before they become i32 lanes: in bytes for as long as they fit, or in the lanes themselves.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import math
from xdsl.ir import Attribute

from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, i8, i16, i32, vec

_NIBBLE_COUNTS = [bin(nibble).count("1") for nibble in range(16)]
_LOW_NIBBLES = 0x0F0F0F0F


@dataclass(frozen=True)
class BitCount(ABC):
    """Counts in `lanes` rows at once: a whole vector register of i32."""

    lanes: int

    @property
    @abstractmethod
    def kind(self) -> Attribute:
        """The type of a count."""

    @property
    @abstractmethod
    def room(self) -> int:
        """How many words' counts may be added up."""

    @property
    def parts(self) -> int:
        """How many vectors `split` makes of one."""
        return 1

    def split(self, b: KernelBuilder, words: Value) -> list[Value]:
        """i32 lanes (or one i32) in the form that `count` takes: bitwise, so that it can be done to
        the operands of an exclusive or before, or to its result."""
        return [words]

    @abstractmethod
    def count(self, b: KernelBuilder, parts: Sequence[Value]) -> Value:
        """The set bits of a split vector, to be added up."""

    @abstractmethod
    def total(self, b: KernelBuilder, counts: Value) -> Value:
        """Sums of counts as i32 lanes."""


@dataclass(frozen=True)
class WordCount(BitCount):
    """One instruction counts a lane (`vpopcntd`)."""

    @property
    def kind(self) -> Attribute:
        """See BitCount."""
        return vec(self.lanes, i32)

    @property
    def room(self) -> int:
        """See BitCount."""
        return (2**31 - 1) // 32

    def count(self, b: KernelBuilder, parts: Sequence[Value]) -> Value:
        """See BitCount."""
        return b.unary(math.CtPopOp, parts[0])

    def total(self, b: KernelBuilder, counts: Value) -> Value:
        """See BitCount."""
        return counts


@dataclass(frozen=True)
class ByteCount(BitCount):
    """One instruction counts a byte (`cnt`, `vpopcntb`); upstream operations alone."""

    @property
    def kind(self) -> Attribute:
        """See BitCount."""
        return vec(4 * self.lanes, i8)

    @property
    def room(self) -> int:
        """See BitCount."""
        return 255 // 8

    def count(self, b: KernelBuilder, parts: Sequence[Value]) -> Value:
        """See BitCount."""
        return b.unary(math.CtPopOp, b.bitcast(parts[0], self.kind))

    def total(self, b: KernelBuilder, counts: Value) -> Value:
        """See BitCount."""
        halves = b.bitcast(counts, vec(2 * self.lanes, i16))
        pairs = b.bitcast((halves & 0xFF) + halves.shr(8), vec(self.lanes, i32))
        return (pairs & 0xFFFF) + pairs.shr(16)


@dataclass(frozen=True)
class NibbleCount(ByteCount):
    """A table of sixteen counts in a register, looked up for both nibbles of a byte (`vpshufb`;
    W. Mula, N. Kurz, D. Lemire, arXiv 1611.07612)."""

    lookup: str

    @property
    def parts(self) -> int:
        """See BitCount."""
        return 2

    def split(self, b: KernelBuilder, words: Value) -> list[Value]:
        """See BitCount: the low and the high nibbles, one in each byte."""
        return [words & _LOW_NIBBLES, words.shr(4) & _LOW_NIBBLES]

    def count(self, b: KernelBuilder, parts: Sequence[Value]) -> Value:
        """See BitCount."""
        table = b.const(_NIBBLE_COUNTS * (self.lanes // 4), self.kind)
        low, high = (
            b.intrinsic(self.lookup, (table, b.bitcast(part, self.kind)), self.kind)
            for part in parts
        )
        return low + high


def bit_count(isa: Isa) -> BitCount:
    """The form for an instruction set."""
    lanes = isa.vector_bits // 32
    if isa.counts_words:
        return WordCount(lanes)
    return NibbleCount(lanes, isa.byte_lookup) if isa.byte_lookup else ByteCount(lanes)
