"""What prefill attention reads its keys from, 64 at a time: numbers, codes, tokens as they are.

A tile of keys and the tile of their values lie in shared memory, in rows of parts of 16 bytes that
are permuted by the low bits of the row. Numbers are copied there while other tiles are multiplied;
codes become f16 on the way, rounded once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import i16, i32

from nybble.backends.building.values import Value
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.kernels.attention.coded import CodedCache
from nybble.backends.gpu.kernels.attention.fragments import (
    HIGH_HALVES,
    LOW_HALVES,
    LOW_TWICE,
    PAIRS,
    expand,
)
from nybble.backends.gpu.kernels.instructions import fused_halves

KEYS_OF_TILE = 64
THREADS = 128
PART = 16
"""Bytes that a lane copies, and of a row of a matrix of `ldmatrix`."""
_NUMBERS = PART // 2
_EVERY = -(1 << 30)
"""Less than the number of any key, counted from any other."""


@dataclass(frozen=True)
class Room:
    """Shared memory of tiles. parts: of a row."""

    b: GpuBuilder
    parts: int

    @property
    def tile_bytes(self) -> int:
        """Of 64 keys, and of their values."""
        return KEYS_OF_TILE * self.parts * PART

    @property
    def rows(self) -> int:
        """Rows that all threads fill at once, a part each."""
        return THREADS // self.parts

    @property
    def row(self) -> Value:
        """The first row that this thread fills."""
        return self.b.thread() // self.parts

    @property
    def part(self) -> Value:
        """The part of rows that this thread fills."""
        return self.b.thread() % self.parts

    def place(self, stage: Value) -> Value:
        """Pointer to this thread's part of its first row, of the keys of a stage; its other rows
        are `rows` further, and the values `tile_bytes`."""
        permuted = (self.part ^ (self.row % 8)) * PART
        at = stage * (2 * self.tile_bytes) + self.row * (self.parts * PART) + permuted
        return self.b.offset(self.b.shared(), at)


class KeySpan(ABC):
    """Tiles of keys. past: keys before the query that counts as 0."""

    def __init__(self, room: Room, past: Value) -> None:
        self.b, self.room, self.past = room.b, room, past

    @abstractmethod
    def copy(self, tile: Value, stage: Value) -> None:
        """Fill a stage with a tile, or ask for that."""

    @abstractmethod
    def seen(self, tile: Value, query: Value) -> tuple[Value, Value | None]:
        """The last key, counted from the first of a tile, that a query sees; the first one, if
        there are any in the tile before it."""


class Numbers(KeySpan):
    """A cache of numbers: keys and values are pointers to the rows of a head. place: from a tile to
    its number in the cache."""

    def __init__(
        self, room: Room, past: Value, bases: Sequence[Value], place: Callable[[Value], Value]
    ) -> None:
        super().__init__(room, past)
        self.bases, self.place = bases, place

    def copy(self, tile: Value, stage: Value) -> None:
        b, room = self.b, self.room
        target = room.place(stage)
        source = self.place(tile) * room.tile_bytes + b.thread() * PART
        for i, base in enumerate(self.bases):
            start, into = b.offset(base, source), b.offset(target, i * room.tile_bytes)
            for more in range(0, KEYS_OF_TILE, room.rows):
                b.copy_async(into, start, more * room.parts * PART)

    def seen(self, tile: Value, query: Value) -> tuple[Value, Value | None]:
        return self.past + query - self.place(tile) * KEYS_OF_TILE, None


class Codes(KeySpan):
    """What a cache with codes has behind the pinned tokens; at: pointers to what a head has of
    each parameter."""

    def __init__(self, room: Room, past: Value, cache: CodedCache, at: dict[str, Value]) -> None:
        super().__init__(room, past)
        self.cache, self.at = cache, at

    def _first(self, tile: Value) -> Value:
        return tile * KEYS_OF_TILE + self.cache.format.pinned

    def tiles(self, query: Value) -> Value:
        """How many there are with codes that a query sees."""
        end = self.cache.boundary(self.b, self.past + query)
        return self.b.max(end - self.cache.format.pinned + (KEYS_OF_TILE - 1), 0) // KEYS_OF_TILE

    def seen(self, tile: Value, query: Value) -> tuple[Value, Value | None]:
        end = self.cache.boundary(self.b, self.past + query)
        return end - 1 - self._first(tile), None

    def copy(self, tile: Value, stage: Value) -> None:
        b, room, first = self.b, self.room, self._first(tile)
        target, rows = room.place(stage), range(0, KEYS_OF_TILE, room.rows)
        for i, name in enumerate("kv"):
            found = (
                self._key_scales(first, rows) if name == "k" else self._value_scales(first, rows)
            )
            start = (first + room.row) * self.cache.row + room.part * self.cache.format.bits
            source = b.offset(self.at[name], start)
            for more, (scales, minima) in zip(rows, found, strict=True):
                pairs = self._pairs(b.offset(source, more * self.cache.row))
                triples = zip(pairs, scales, minima, strict=True)
                words = [fused_halves(b, *triple) for triple in triples]
                into = b.offset(target, i * room.tile_bytes + more * room.parts * PART)
                b.store(b.emit_from(words), into)

    def _pairs(self, pointer: Value) -> list[Value]:
        """Neighbouring codes of a part, as pairs of f16."""
        b, bits = self.b, self.cache.format.bits
        if bits == 2:
            words = [b.zext(b.load(pointer, i16), i32)]
        else:
            words = b.load_words(pointer, 0, bits // 4)
        each, held = 32 // bits, dict[int, tuple[Value, int]]()
        for number, word in enumerate(words):
            for pair, elements in zip(expand(b, word, bits), PAIRS[bits], strict=True):
                held |= {number * each + one: (pair, i) for i, one in enumerate(elements)}
        return [self._pair(held[i], held[i + 1]) for i in range(0, _NUMBERS, 2)]

    def _pair(self, first: tuple[Value, int], second: tuple[Value, int]) -> Value:
        """Two halves of words as a pair: lower or upper ones of two, or all of one."""
        (low, side), (high, _) = first, second
        if low is high:
            return low
        return self.b.permute(low, high, HIGH_HALVES if side else LOW_HALVES)

    def _key_scales(self, first: Value, rows: Sequence[int]) -> list[list[list[Value]]]:
        """Pairs of scales, and of minima, for each of some rows: rows of one group share them."""
        b, size, found = self.b, self.cache.format.key_group, dict[int, list[list[Value]]]()
        for more in rows:
            if more // size not in found:
                group = (first + more) // size
                place = (group * self.cache.head_dim + self.room.part * _NUMBERS) * 2
                found[more // size] = [
                    b.load_words(b.offset(self.at[f"k_{one}"], place), 0, 4)
                    for one in ("scales", "minima")
                ]
        return [found[more // size] for more in rows]

    def _value_scales(self, first: Value, rows: Sequence[int]) -> list[list[list[Value]]]:
        """The same of values: all numbers of a part share theirs."""
        b, cache = self.b, self.cache
        group = self.room.part * _NUMBERS // (cache.head_dim // cache.value_groups)
        place = (group * cache.context + first + self.room.row) * 2
        found: list[list[list[Value]]] = []
        for more in rows:
            bits = [
                b.zext(b.load(b.offset(self.at[f"v_{one}"], place + more * 2), i16), i32)
                for one in ("scales", "minima")
            ]
            found.append([[b.permute(one, one, LOW_TWICE)] * (_NUMBERS // 2) for one in bits])
        return found


class Exact(KeySpan):
    """Its tokens as they are: the pinned ones, and those that the first query of a block sees no
    codes of. start: the first token that is no code for it; length: keys in all."""

    def __init__(
        self, room: Room, past: Value, cache: CodedCache, at: dict[str, Value], query: Value,
        length: Value,
    ) -> None:  # fmt: skip
        super().__init__(room, past)
        b = self.b
        self.cache, self.at = cache, at
        pinned = cache.format.pinned
        self.start = b.max(cache.boundary(b, past + query), pinned)
        self.pinned = (b.min(length, pinned) + (KEYS_OF_TILE - 1)) // KEYS_OF_TILE
        """Tiles of pinned tokens."""
        recent = b.max(length - self.start, 0) + (KEYS_OF_TILE - 1)
        self.count = self.pinned + recent // KEYS_OF_TILE

    def _first(self, tile: Value) -> Value:
        recent = self.start + (tile - self.pinned) * KEYS_OF_TILE
        return self.b.select(tile < self.pinned, tile * KEYS_OF_TILE, recent)

    def copy(self, tile: Value, stage: Value) -> None:
        b, room = self.b, self.room
        target, row = room.place(stage), self._first(tile) + room.row
        for more in range(0, KEYS_OF_TILE, room.rows):
            place = self.cache.slot(b, row + more) * (room.parts * PART) + room.part * PART
            for i, name in enumerate("kv"):
                into = b.offset(target, i * room.tile_bytes + more * room.parts * PART)
                b.copy_async(into, b.offset(self.at[f"{name}_exact"], place), 0)

    def seen(self, tile: Value, query: Value) -> tuple[Value, Value | None]:
        b, first = self.b, self._first(tile)
        codes = self.cache.boundary(b, self.past + query) - first
        return (
            self.past + query - first,
            b.select(tile < self.pinned, b.const(_EVERY, i32), codes),
        )
