"""T(c) of packed codes inside a kernel: f32 numbers, or levels for integer dot products.

A register that holds all values answers a code with one permutation, whatever T is. Other codes
are computed if T is a line, or an integer times a power of two that bytes are looked up of; else
several permutations are selected from. The permutations are those of the instruction set
(`Isa.word_permute`, `Isa.byte_shuffle`); without one the values are selected bit by bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from nybble.backends.building.values import lanes
from nybble.backends.cpu.isa import Isa, Permute
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, i8, i32, vec
from nybble.backends.cpu.kernels.matmul.codes import (
    MOST_VALUES,
    Codes,
    Integers,
    SmallFloat,
    Table,
)
from nybble.backends.cpu.tile_layout import LANES, VECTOR

WORDS = vec(LANES, i32)
FLOATS = vec(LANES, f32)
BYTES = vec(VECTOR, i8)
_WHOLE = 0x4B000000
"""The bits of 2**23: with an integer below 2**23 in its mantissa, the float is their sum."""


class Element(ABC):
    """T of the code that lies from a bit on in i32 lanes; what lies above it is ignored."""

    def __init__(self, b: KernelBuilder, bits: int):
        self.b = b
        self.bits = bits

    @abstractmethod
    def at(self, word: Value, bit: int, chosen: Value | None = None) -> Value:
        """f32 lanes. chosen: f32 lanes of what stands for the special code, if there is one."""

    def code(self, word: Value, bit: int) -> Value:
        """The code alone."""
        moved = word.shr(bit) if bit else word
        return moved if bit + self.bits == 32 else moved & (2**self.bits - 1)


class Affine(Element):
    """step * c - zero_point."""

    def __init__(self, b: KernelBuilder, codes: Codes):
        super().__init__(b, codes.bits)
        self.shift = codes.step - 1
        self.zero_point = codes.zero_point

    def at(self, word: Value, bit: int, chosen: Value | None = None) -> Value:
        """See Element: the code goes into the mantissa of 2**23, which needs no conversion."""
        bit -= self.shift
        moved = word.shr(bit) if bit > 0 else word << -bit if bit else word
        whole = (moved & (2**self.bits - 1) << self.shift) | _WHOLE
        return self.b.bitcast(whole, FLOATS) - float(2**23 + self.zero_point)


class Lookup(Element):
    """values[c] of at most 16 values."""

    def __init__(self, b: KernelBuilder, codes: Codes, isa: Isa):
        super().__init__(b, codes.bits)
        values = codes.values()
        self.values = values * (MOST_VALUES // len(values))
        self.permute = isa.word_permute
        self.special = codes.table.special if isinstance(codes.table, Table) else 0

    def at(self, word: Value, bit: int, chosen: Value | None = None) -> Value:
        """See Element."""
        moved = word.shr(bit) if bit else word
        found = self._found(moved)
        if chosen is None:
            return found
        return self.b.select(self.code(word, bit).eq(self.special), chosen, found)

    def _found(self, index: Value) -> Value:
        if self.permute.name:
            return permuted(self.b, self.permute, self.values, index)
        leaves = [self.b.const(value, FLOATS) for value in self.values]
        return _selected(self.b, leaves, index)


class Levels(Element):
    """unit * (level[c] - zero_point) of codes that have a byte each: see Integers."""

    def __init__(self, b: KernelBuilder, codes: Codes, integers: Integers, shuffle: Permute):
        super().__init__(b, codes.bits)
        self.integers = integers
        self.shuffle = shuffle

    def at(self, word: Value, bit: int, chosen: Value | None = None) -> Value:
        """See Element: the level goes into the mantissa of 2**23 units."""
        b, integers = self.b, self.integers
        found = looked_up_bytes(b, self.shuffle, integers.levels, word & 0x0F0F0F0F)
        levels = b.bitcast(found, WORDS)
        moved = levels.shr(bit) if bit else levels
        large = 2.0**23 * integers.unit
        bits = int(np.float32(large).view(np.int32))
        whole = (moved if bit == 24 else moved & 0xFF) | bits
        return b.bitcast(whole, FLOATS) - (large + integers.zero_point * integers.unit)


class Computed(Element):
    """A small float, put together in the fields of an f32."""

    def __init__(self, b: KernelBuilder, form: SmallFloat):
        super().__init__(b, 1 + form.exponent + form.mantissa)
        self.form = form

    def at(self, word: Value, bit: int, chosen: Value | None = None) -> Value:
        """See Element."""
        b, form = self.b, self.form
        one = 1 << 23
        code = word.shr(bit) if bit else word
        magnitude = (code << 23 - form.mantissa) & ((1 << self.bits - 1) - 1 << 23 - form.mantissa)
        normal = magnitude + ((127 - form.bias) << 23)
        least = b.bitcast(magnitude + ((128 - form.bias) << 23), FLOATS)
        subnormal = b.bitcast(least - 2.0 ** (1 - form.bias), WORDS)
        bits = b.select(magnitude < one, subnormal, normal)
        if form.exponent == 5:
            bits = b.select(magnitude < 31 * one, bits, magnitude | 0x7F800000)
        elif form.exponent == 4:
            bits = b.select(magnitude < 0x7F << 20, bits, b.const(0x7FC00000, WORDS))
        sign = (code << 32 - self.bits) & -0x80000000
        return b.bitcast(bits | sign, FLOATS)


def element(b: KernelBuilder, codes: Codes, isa: Isa) -> Element:
    """T of some codes."""
    if isinstance(codes.table, SmallFloat):
        return Computed(b, codes.table)
    at_once = bool(isa.word_permute.name) and 2**codes.bits <= isa.word_permute.lanes
    if codes.table is None and not at_once:
        return Affine(b, codes)
    integers = codes.integers
    if at_once or codes.has_choice or integers is None or not isa.byte_shuffle.name:
        return Lookup(b, codes, isa)
    return Levels(b, codes, integers, isa.byte_shuffle)


def permuted(b: KernelBuilder, permute: Permute, values: Sequence[float], index: Value) -> Value:
    """values[index % 16] in f32 lanes, by an instruction that knows `permute.lanes` at once."""
    bits = np.array(values, np.float32).view(np.int32).tolist()
    return b.bitcast(permuted_words(b, permute, bits, index), FLOATS)


def permuted_words(b: KernelBuilder, permute: Permute, words: Sequence[int], index: Value) -> Value:
    """words[index modulo their number] in i32 lanes; of 8 or 16 words."""
    if not permute.name:
        return _selected(b, [b.const(word, WORDS) for word in words], index)
    width = permute.lanes
    bits = [*words] * max(1, width // len(words))
    tables = [b.const(bits[at : at + width], vec(width, i32)) for at in range(0, len(bits), width)]
    runs: list[Value] = []
    for first in range(0, LANES, width):
        run = b.slice(index, first, width) if width < LANES else index
        found = [b.intrinsic(permute.name, (table, run), vec(width, i32)) for table in tables]
        runs.append(_selected(b, found, run, width.bit_length() - 1))
    return joined(b, runs)


def looked_up_bytes(
    b: KernelBuilder, permute: Permute, levels: Sequence[int], word: Value
) -> Value:
    """levels[code] in every byte of i32 lanes whose bytes are codes below 16."""
    table = [level - 256 if level > 127 else level for level in levels]
    table = table * (permute.lanes // len(table))
    return looked_up(b, permute, b.const(table, vec(permute.lanes, i8)), word)


def looked_up(b: KernelBuilder, permute: Permute, entries: Value, word: Value) -> Value:
    """entries[code] in every byte of i32 lanes whose bytes are codes below 16.

    entries: 16 bytes, again and again, in a register of the instruction's width.
    """
    codes = b.bitcast(word, BYTES)
    runs: list[Value] = []
    for first in range(0, VECTOR, permute.lanes):
        run = b.slice(codes, first, permute.lanes) if permute.lanes < VECTOR else codes
        runs.append(b.intrinsic(permute.name, (entries, run), vec(permute.lanes, i8)))
    return joined(b, runs)


def one_of(b: KernelBuilder, values: Sequence[float], choice: Value) -> Value:
    """values[choice] in f32 lanes, or i32 lanes for whole numbers, by i32 lanes of choices."""
    type_ = WORDS if isinstance(values[0], int) else FLOATS
    found = b.const(values[0], type_)
    for index, value in enumerate(values[1:], 1):
        found = b.select(choice.eq(index), b.const(value, type_), found)
    return found


def _selected(b: KernelBuilder, leaves: Sequence[Value], index: Value, bit: int = 0) -> Value:
    """leaves[index >> bit], lane by lane, for a power of two of leaves."""
    while len(leaves) > 1:
        odd = (index << 31 - bit) < 0
        pairs = zip(leaves[::2], leaves[1::2], strict=True)
        leaves = [b.select(odd, high, low) for low, high in pairs]
        bit += 1
    return leaves[0]


def joined(b: KernelBuilder, parts: Sequence[Value]) -> Value:
    """One vector of a power of two of equal ones."""
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [b.shuffle(low, high, range(2 * lanes(low.type))) for low, high in pairs]
    return parts[0]
