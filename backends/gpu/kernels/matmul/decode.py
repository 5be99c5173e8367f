"""Codes in registers become fragments of floats: the A operand of `mma.m16n8k16`.

One decoder per meaning of a code. What a decoder's floats have above T(c) along a row is its
`surplus`, and what T(c) is in units of its floats its `factor`: both are made good on sums.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import assert_never

import numpy as np

from nybble.backends.building.values import Value
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.packing.fields import (
    EXPONENT_BIAS,
    Floats,
    FloatType,
    Integers,
    Take,
)
from nybble.backends.gpu.packing.kind import Line, Meaning, Small, Split, Table
from nybble.backends.gpu.packing.placement import Placement

HALVES = 0x10001
"""Repeats 16 bits in both halves of a word."""


class Words:
    """The words of one tile of 16 columns; a word moved by the same distance is moved once.

    table: the words of the record's table, if it has one.
    """

    def __init__(self, b: GpuBuilder, words: Sequence[Value], table: Sequence[Value] = ()):
        self.b = b
        self.words = words
        self.table = table
        self._moved: dict[tuple[int, int], Value] = {}

    def moved(self, word: int, shift: int) -> Value:
        """A word moved right by `shift`, or to the left."""
        key = (word, shift)
        if key not in self._moved:
            value = self.words[word]
            made = value.shr(shift) if shift > 0 else value << -shift if shift else value
            self._moved[key] = made
        return self._moved[key]

    def put_together(self, takes: Sequence[Take], bits: Value | int) -> Value:
        """The bits of some takes, and those given."""
        made = bits
        for take in takes:
            word = self.moved(take.word, take.shift)
            mask = take.mask * HALVES
            made = word & self.b.word(mask) if made == 0 else self.b.and_or(word, mask, made)
        assert isinstance(made, Value)
        return made


class Decoder(ABC):
    """Makes floats of codes. factor: T(c) is `factor` times the float, `surplus` aside."""

    factor: float = 1.0

    def __init__(self, b: GpuBuilder, placement: Placement, dtype: FloatType):
        self.b = b
        self.placement = placement
        self.dtype: FloatType = dtype

    @abstractmethod
    def fragment(self, words: Words, index: int) -> list[Value]:
        """The four registers of a fragment: of row g, g + 8, g and g + 8."""

    def surplus(self, fragment: int, upper: int) -> float:
        """What the floats of a row have above T(c) / factor: row g, or g + 8 if `upper`."""
        return 0.0


class LineDecoder(Decoder):
    """step * c + first."""

    def __init__(self, b: GpuBuilder, placement: Placement, dtype: FloatType, line: Line):
        super().__init__(b, placement, dtype)
        self.integers = Integers(placement, dtype)
        self.line = line
        self.factor = float(line.step)

    def fragment(self, words: Words, index: int) -> list[Value]:
        """See Decoder."""
        made: list[Value] = []
        for register in range(4):
            magic = self.integers.magic(index, register)
            made.append(words.put_together(self.integers.takes(index, register), magic))
        return made

    def surplus(self, fragment: int, upper: int) -> float:
        """See Decoder."""
        return self.integers.offset(fragment, upper) - self.line.first / self.line.step


class SmallDecoder(Decoder):
    """A small float, in the fields of a larger one."""

    def __init__(self, b: GpuBuilder, placement: Placement, dtype: FloatType, small: Small):
        super().__init__(b, placement, dtype)
        self.floats = Floats(placement, small.mantissa, dtype)
        bias = EXPONENT_BIAS[dtype] - small.bias
        self.times = 2.0**bias if dtype == "bf16" else 1.0
        self.factor = 2.0**bias / self.times / small.unit

    def fragment(self, words: Words, index: int) -> list[Value]:
        """See Decoder: products of floats as small as bf16 can be would vanish."""
        takes = [self.floats.takes(index, register) for register in range(4)]
        made = [words.put_together(one, 0) for one in takes]
        if self.times != 1.0:
            made = [self.b.scale_halves(one, self.times, self.dtype) for one in made]
        return made


class TableDecoder(Decoder):
    """One of 16 numbers: their bytes are looked up, eight at a time, by byte permutations."""

    def __init__(self, b: GpuBuilder, placement: Placement, dtype: FloatType, table: Table):
        super().__init__(b, placement, dtype)
        bits = half_bits(table.values, dtype)
        self.bytes = [[_four(bits[i : i + 4], shift) for i in range(0, 16, 4)] for shift in (0, 8)]

    def fragment(self, words: Words, index: int) -> list[Value]:
        """See Decoder: a word has the eight codes of a fragment, in order."""
        made: list[Value] = []
        for shift in (0, 16):
            low, high = (looked_up(self.b, words, index, shift, one) for one in self.bytes)
            made += joined(self.b, low, high)
        return made


class SplitDecoder(Decoder):
    """bf16 of a low byte, and a high byte that is looked up in the table of the record."""

    def fragment(self, words: Words, index: int) -> list[Value]:
        """See Decoder: the words of low bytes, two for a fragment, come before those of indices."""
        low, indices = self.placement.planes
        made: list[Value] = []
        for half in (0, 1):
            high = looked_up(self.b, words, indices.first + index, 16 * half, words.table)
            made += joined(self.b, words.words[low.first + 2 * index + half], high)
        return made


def joined(b: GpuBuilder, low: Value, high: Value) -> list[Value]:
    """Four 16-bit numbers, as two registers, of their low and their high bytes."""
    return [b.permute(low, high, 0x5140), b.permute(low, high, 0x7362)]


def looked_up(
    b: GpuBuilder, words: Words, index: int, shift: int, table: Sequence[int] | Sequence[Value]
) -> Value:
    """Four bytes of a table of 16, which four words hold, by the four codes at `shift` of a word.

    A byte permutation looks up eight; the codes' highest bits choose between two.
    """
    first, second, third, fourth = (
        b.word(word) if isinstance(word, int) else word for word in table
    )
    within = words.moved(index, shift) & 0x7777
    small, large = b.permute(first, second, within), b.permute(third, fourth, within)
    which = b.and_or(words.moved(index, shift + 1), 0x4444, 0x3210)
    return b.permute(small, large, which)


def decoder(b: GpuBuilder, placement: Placement, dtype: FloatType, meaning: Meaning) -> Decoder:
    """The decoder of a meaning."""
    match meaning:
        case Line():
            return LineDecoder(b, placement, dtype, meaning)
        case Small():
            return SmallDecoder(b, placement, dtype, meaning)
        case Table():
            return TableDecoder(b, placement, dtype, meaning)
        case Split():
            return SplitDecoder(b, placement, dtype)
        case _:
            assert_never(meaning)


def half_bits(values: Sequence[float], dtype: FloatType) -> list[int]:
    """The bits of numbers rounded to a 16-bit float, to nearest even."""
    if dtype == "f16":
        return [int(bits) for bits in np.array(values, np.float16).view(np.uint16)]
    words = np.array(values, np.float32).view(np.uint32).astype(np.uint64)
    return [int(word + 0x7FFF + (word >> 16 & 1)) >> 16 for word in words]


def _four(halves: Sequence[int], shift: int) -> int:
    return sum((half >> shift & 0xFF) << 8 * i for i, half in enumerate(halves))


__all__ = ["Decoder", "Words", "decoder", "half_bits"]
