"""Where harts add up the products of a window: a hash table, one with fragments, or an array.

Each can be cleared, takes products from any hart at any time, and is written back by all harts
together, which leaves it empty again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import math
from xdsl.ir import Attribute

from nybble.backends.building.values import Value, i8, i16, i64
from nybble.backends.spgemm.problem import EMPTY, Word
from nybble.backends.spgemm.rv.builder import Memory, element_bytes
from nybble.backends.spgemm.rv.frame import Frame
from nybble.dialects.atomics import Ordering

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
"""2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, 6.4)."""


GROUP = 8
"""Places of an array that are looked at together: a word of bytes."""
ONES = 0x0101010101010101
"""Times a word of bytes 0 and 1, it has their sum in its highest byte."""


@dataclass(frozen=True)
class Part:
    """A window: its first row and column, and how many of each it has."""

    row: Value
    rows: Value
    column: Value
    columns: Value


@dataclass(frozen=True)
class Product:
    """A value for a place. hash: "high" or "low", empty where nothing is hashed."""

    row: Value
    column: Value
    value: Value
    hash: str = ""

    @property
    def key(self) -> Value:
        """The place as one number."""
        return (self.row << 32) | self.column


@dataclass
class Accumulator(ABC):
    """bits: log2 of its slots or places; element: type of the sums."""

    frame: Frame
    bits: int
    element: Attribute

    @property
    def slots(self) -> Value:
        """How many slots or places it has."""
        return self.frame.builder.int(1 << self.bits)

    @property
    def sums(self) -> Memory:
        """The sums."""
        return self.frame.array(Word.SUMS, self.element)

    @property
    def zero(self) -> Value:
        """The sum of nothing."""
        return self.frame.builder.const(0, self.element)

    @abstractmethod
    def clear(self) -> None:
        """Empty this hart's share, whatever is in it."""

    @abstractmethod
    def insert(self, part: Part, product: Product) -> None:
        """Add a product that lies in the window."""

    @abstractmethod
    def write(self, part: Part) -> None:
        """Append the entries to the result and empty the accumulator; then wait for all harts."""

    def append(self, key: Value, value: Value) -> None:
        """One more entry of the result."""
        place = self.frame.descriptor.add(int(Word.OUT_COUNT), self.frame.builder.int(1))
        self.frame.array(Word.OUT_KEYS, i64).store(key, place)
        self.frame.array(Word.OUT_VALUES, self.element).store(value, place)


@dataclass
class Table(Accumulator):
    """Open addressing with linear probing; a slot has a key and a sum."""

    @property
    def keys(self) -> Memory:
        """The keys of the slots."""
        return self.frame.array(Word.KEYS, i64)

    @property
    def empty(self) -> Value:
        """The key of an empty slot."""
        return self.frame.builder.int(EMPTY)

    def clear(self) -> None:
        """See `Accumulator`."""
        with self.frame.builder.for_(*self.frame.share(self.slots)) as loop:
            self.keys.store(self.empty, loop.iv)
            self.sums.store(self.zero, loop.iv)

    def slot(self, part: Part, product: Product) -> Value:
        """The slot that is looked at first."""
        if product.hash == "low":
            return (product.key * GOLDEN).shr(64 - self.bits)
        b = self.frame.builder
        width = 64 - b.emit(math.CountLeadingZerosOp, (part.columns - 1,), i64)
        return ((product.column - part.column) << self.bits).shr(width)

    def insert(self, part: Part, product: Product) -> None:
        """See `Accumulator`."""
        b = self.frame.builder
        key = product.key

        def test(state: Sequence[Value]) -> tuple[Value, Sequence[Value]]:
            slot, left = state
            there = self.keys.load(slot, Ordering.MONOTONIC)
            there = b.either(there.eq(EMPTY), lambda: self.claimed(slot, key), lambda: there)
            return there.ne(key) & (left > 0), (slot, left, there)

        def step(state: Sequence[Value]) -> Sequence[Value]:
            slot, left, _ = state
            return (slot + 1) & ((1 << self.bits) - 1), left - 1

        inits = (self.slot(part, product), self.slots - 1)
        slot, _, there = b.repeat(inits, test, step)
        with b.if_(there.eq(key)) as found:
            self.accumulate(slot, product)
        with found.otherwise():
            self.spill(product)

    def claimed(self, slot: Value, key: Value) -> Value:
        """The key that a slot has after this hart tried to make it its own."""
        found = self.keys.claim(slot, self.empty, key)
        b = self.frame.builder
        return b.select(found.eq(EMPTY), key, found)

    def accumulate(self, slot: Value, product: Product) -> None:
        """Add to the sum of a slot that has the product's key."""
        self.frame.accumulate(self.sums, slot, product.value)

    def spill(self, product: Product) -> None:
        """Append a product that found no room to the result."""
        self.frame.descriptor.add(int(Word.SPILLED), self.frame.builder.int(1))
        self.append(product.key, product.value)

    def write(self, part: Part) -> None:
        """See `Accumulator`."""
        b = self.frame.builder
        with b.for_(*self.frame.share(self.slots)) as loop:
            key = self.keys.load(loop.iv)
            with b.if_(key.ne(EMPTY)):
                self.append(key, self.sums.load(loop.iv))
                self.keys.store(self.empty, loop.iv)
                self.sums.store(self.zero, loop.iv)
        self.frame.barrier()


@dataclass
class Fragments(Accumulator):
    """A part of the scratchpad for each hart: a pointer for each column, and entries without gaps.

    Nothing is shared, so nothing is atomic; DMA moves the entries of a row when it is complete, or
    when there is no room for another one. A pointer counts if the entry that it points to is there
    and has the key that is looked for, so that pointers need no clearing (Briggs and Torczon, An
    efficient representation for sparse sets, 1993).
    """

    _count: Memory | None = None

    @property
    def pointers(self) -> Memory:
        """The entry of each column, if it has one."""
        whole = self.frame.array(Word.POINTERS, i16)
        return Memory(whole.builder, whole.at(self.frame.hart * self.slots), i16)

    @property
    def entries(self) -> tuple[Memory, Memory]:
        """Keys and sums of this hart's entries."""
        first = self.frame.hart * self.frame.word(Word.ENTRIES)
        keys, sums = self.frame.array(Word.FRAGMENT_KEYS, i64), self.sums
        return (
            Memory(keys.builder, keys.at(first), i64),
            Memory(sums.builder, sums.at(first), self.element),
        )

    @property
    def count(self) -> Memory:
        """How many entries there are."""
        assert self._count is not None
        return self._count

    def clear(self) -> None:
        """See `Accumulator`."""
        b = self.frame.builder
        self._count = b.variable(b.int(0))

    def found(self, part: Part, product: Product) -> tuple[Value, Value]:
        """The entry that a product's column points to, and whether it is that of its place."""
        b = self.frame.builder
        pointer = b.zext(self.pointers.load(product.column - part.column), i64)
        known = b.either(
            b.below(pointer, self.count.load(0)),
            lambda: self.entries[0].load(pointer).eq(product.key),
            lambda: b.bit(value=False),
        )
        return pointer, known

    def insert(self, part: Part, product: Product) -> None:
        """See `Accumulator`."""
        b = self.frame.builder
        pointer, known = self.found(part, product)
        keys, sums = self.entries
        with b.if_(known) as branch:
            sums.store(sums.load(pointer) + product.value, pointer)
        with branch.otherwise():
            with b.if_(self.count.load(0).eq(self.frame.word(Word.ENTRIES))):
                self.frame.descriptor.add(int(Word.SPILLED), self.count.load(0))
                self.write(part)
            place = self.count.load(0)
            keys.store(product.key, place)
            sums.store(product.value, place)
            self.pointers.store(b.trunc(place, i16), product.column - part.column)
            self.count.store(place + 1, 0)

    def write(self, part: Part) -> None:
        """See `Accumulator`; a hart by itself."""
        frame, b = self.frame, self.frame.builder
        count = self.count.load(0)
        before = frame.descriptor.add(int(Word.OUT_COUNT), count)
        frame.copy(
            *(
                (
                    frame.array(word, source.element).at(before),
                    source.base,
                    count * element_bytes(source.element),
                )
                for source, word in zip(self.entries, (Word.OUT_KEYS, Word.OUT_VALUES), strict=True)
            )
        )
        self.count.store(b.int(0), 0)


@dataclass
class Masked(Fragments):
    """Fragments whose entries are there before any product: the places of a mask.

    A byte says whether an entry got a product; the others are left out of the result.
    """

    @property
    def met(self) -> Memory:
        """Whether there was a product for each of this hart's entries."""
        whole = self.frame.array(Word.KEYS, i8)
        first = self.frame.hart * self.frame.word(Word.ENTRIES)
        return Memory(whole.builder, whole.at(first), i8)

    def admit(self, part: Part, row: Value, columns: Memory, bounds: tuple[Value, Value]) -> None:
        """Make entries of the places [first, last) of a mask that lie in the window."""
        b = self.frame.builder
        keys, sums = self.entries
        self.count.store(b.int(0), 0)
        with b.for_(*bounds) as loop:
            column = b.sext(columns.load(loop.iv), i64)
            with b.if_(b.below(column - part.column, part.columns)):
                place = self.count.load(0)
                keys.store((row << 32) | column, place)
                sums.store(self.zero, place)
                self.met.store(b.const(0, i8), place)
                self.pointers.store(b.trunc(place, i16), column - part.column)
                self.count.store(place + 1, 0)

    def insert(self, part: Part, product: Product) -> None:
        """See `Accumulator`; a product at another place is dropped."""
        pointer, known = self.found(part, product)
        with self.frame.builder.if_(known):
            sums = self.entries[1]
            sums.store(sums.load(pointer) + product.value, pointer)
            self.met.store(self.frame.builder.const(1, i8), pointer)

    def write(self, part: Part) -> None:
        """See `Accumulator`; entries without a product are closed up."""
        b = self.frame.builder
        keys, sums = self.entries
        kept = b.variable(b.int(0))
        with b.for_(b.int(0), self.count.load(0)) as loop, b.if_(self.met.load(loop.iv).ne(0)):
            place = kept.load(0)
            for array in (keys, sums):
                array.store(array.load(loop.iv), place)
            kept.store(place + 1, 0)
        self.count.store(kept.load(0), 0)
        super().write(part)


@dataclass
class Dense(Accumulator):
    """A sum for each place of the window, and a byte that says whether it is an entry."""

    @property
    def present(self) -> Memory:
        """Whether a place has an entry."""
        return self.frame.array(Word.KEYS, i8)

    @property
    def words(self) -> Memory:
        """The bytes of `present`, so many of GROUP at a time."""
        return self.frame.array(Word.KEYS, i64)

    def stride(self, part: Part) -> Value:
        """Places from a row to the next: whole words."""
        return (part.columns + (GROUP - 1)) & -GROUP

    def clear(self) -> None:
        """See `Accumulator`."""
        b = self.frame.builder
        with b.for_(*self.frame.share(self.slots // GROUP)) as loop:
            self.words.store(b.int(0), loop.iv)
            for i in range(GROUP):
                self.sums.store(self.zero, loop.iv * GROUP + i)

    def insert(self, part: Part, product: Product) -> None:
        """See `Accumulator`."""
        b = self.frame.builder
        row, column = product.row - part.row, product.column - part.column
        place = row * self.stride(part) + column
        self.present.store(b.const(1, i8), place, Ordering.MONOTONIC)
        self.frame.accumulate(self.sums, place, product.value)

    def write(self, part: Part) -> None:
        """See `Accumulator`; a hart takes whole rows, and room in the result for each at once."""
        b = self.frame.builder
        first, last = self.frame.share(part.rows)
        words = self.stride(part) // GROUP
        with b.for_(first, last) as rows:
            start, end = rows.iv * words, (rows.iv + 1) * words
            count = b.variable(b.int(0))
            with b.for_(start, end) as loop:
                used = (self.words.load(loop.iv) * ONES).shr(64 - 8)
                count.store(count.load(0) + used, 0)
            with b.if_(count.load(0) > 0):
                place = b.variable(self.frame.descriptor.add(int(Word.OUT_COUNT), count.load(0)))
                with b.for_(start, end) as loop:
                    self._write_word(part, (rows.iv, loop.iv - start), loop.iv, place)
        self.frame.barrier()

    def _write_word(
        self, part: Part, where: tuple[Value, Value], word: Value, place: Memory
    ) -> None:
        """Put the entries of a word at `place` and after. where: row and word within the window."""
        b, (row, across) = self.frame.builder, where
        used = self.words.load(word)
        keys = self.frame.array(Word.OUT_KEYS, i64)
        values = self.frame.array(Word.OUT_VALUES, self.element)
        key = ((row + part.row) << 32) | (across * GROUP + part.column)
        with b.if_(used.ne(0)):
            self.words.store(b.int(0), word)
            for i in range(GROUP):
                with b.if_((used & (1 << 8 * i)).ne(0)):
                    at = place.load(0)
                    keys.store(key + i, at)
                    values.store(self.sums.load(word * GROUP + i), at)
                    self.sums.store(self.zero, word * GROUP + i)
                    place.store(at + 1, 0)


ACCUMULATORS: dict[str, type[Accumulator]] = {
    "table": Table,
    "fragments": Fragments,
    "dense": Dense,
    "masked": Masked,
}
"""Name in programs -> how it is done."""
