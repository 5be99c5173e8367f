"""Pages of a cache become codes once none of their tokens is recent any more.

The rows of a launch are in the ring already (`rotate`). A block has the keys or the values of a
head in a page, a thread the numbers that share scales: of keys the tokens of a group in as many
channels as a byte has codes of, of values the channels of a group in one token. The arithmetic is
that of `lowbit`'s quantizer under a stored minimum, operation by operation, so that codes, scales
and minima are those of the reference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import f16, f32, i8, i32

from nybble.backends.building.values import Value, vec
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.image import Access, Parameter
from nybble.backends.gpu.kernels.attention.coded import PARTS, CodedCache
from nybble.backends.gpu.kernels.attention.spec import AttentionError
from nybble.backends.gpu.kernels.rows.machine import THREADS, RowKernel, RowSpec, buffer
from nybble.dialects.sparse_attn.kv import KEYS

HALF = 2
"""Bytes of a number that is no code."""


@dataclass(frozen=True)
class CodesSpec(RowSpec):
    """Codes of all pages that `tokens` rows leave behind, the first at the position in a buffer.

    sides: of "keys" and "values", those that have been appended. Raises AttentionError for a cache
    whose ring has no room for so many rows.
    """

    tokens: int
    cache: CodedCache
    sides: tuple[str, ...]

    def __post_init__(self) -> None:
        least = self.cache.format.room(self.tokens)
        if self.cache.room < least:
            raise AttentionError(
                f"{self.tokens} tokens at once into '{self.cache.name}' with room for "
                f"{self.cache.room} as they are",
                accepted=f"room for {least} or more",
            )

    @property
    def name(self) -> str:
        """What it is for; specs that differ in the numbers of a format share it."""
        kv = self.cache.format.name.partition("(")[0]
        return f"codes_{kv}_{self.tokens}x{self.cache.heads}x{self.cache.head_dim}"

    @property
    def pages(self) -> int:
        """The most that become codes at once."""
        return -(-self.tokens // self.cache.format.page)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """position, and what the cache has of these sides."""
        position = buffer("position", "i32", Access.READ, 1, 1)
        return (position, *self.cache.parameters(Access.UPDATE, self.sides))


def codes_kernel(spec: CodesSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a block for each page of a head of a side."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    at = dict(zip((one.name for one in spec.parameters), b.parameters, strict=True))
    cache, block = spec.cache, b.block_id()
    kv, position = cache.format, b.load(at["position"], i32)
    last_query = b.min(position + (spec.tokens - 1), cache.context - 1)
    before, end = (cache.boundary(b, query) for query in (position - 1, last_query))
    page = b.max(before, kv.pinned) // kv.page + block % spec.pages
    head = block // spec.pages % cache.heads
    with b.if_(page * kv.page < end):
        for number, side in enumerate(spec.sides):
            with b.if_((block // (spec.pages * cache.heads)).eq(number)):
                Page(b, cache, side, at, head, page * kv.page).quantize()
    return RowKernel(b, spec.parameters, len(spec.sides) * cache.heads * spec.pages)


@dataclass(frozen=True)
class Line:
    """Numbers that share scales, as many at a step as a byte has codes.

    read, code: from the number of a step to a pointer to its first number, and to its byte. scales:
    place of the first scale, and of the first minimum; there is one for each number of a step, or
    one for all of them.
    """

    steps: int
    read: Callable[[Value], Value]
    code: Callable[[Value], Value]
    scales: tuple[Value, Value]
    shared: bool


class Page:
    """Writes what a block does with the keys or values of a head in a page, whose first token is
    `first`."""

    def __init__(
        self, b: GpuBuilder, cache: CodedCache, side: str, at: dict[str, Value], head: Value,
        first: Value,
    ) -> None:  # fmt: skip
        self.b, self.cache, self.side, self.first = b, cache, side, first
        found, name = cache.of_head(b, at, head), side[0]
        self.codes = found[name]
        self.scales, self.minima, self.exact = (found[f"{name}_{one}"] for one in PARTS)

    def quantize(self) -> None:
        """All lines of the page."""
        cache, kv = self.cache, self.cache.format
        keys = self.side == KEYS
        count = kv.page // kv.key_group * cache.row if keys else kv.page * cache.value_groups
        with self.b.for_(self.b.thread(), self.b.const(count, i32), THREADS) as loop:
            self._line(self._key_line(loop.iv) if keys else self._value_line(loop.iv))

    def _key_line(self, number: Value) -> Line:
        """A group of tokens in the channels of a byte."""
        b, cache, size = self.b, self.cache, self.cache.format.key_group
        group, byte = number // cache.row, number % cache.row
        first, channel = self.first + group * size, byte * cache.each
        place = (self.first // size + group) * cache.head_dim + channel
        return Line(
            size,
            lambda step: self._number(first + step, channel),
            lambda step: b.offset(self.codes, (first + step) * cache.row + byte),
            self._scales(place),
            shared=False,
        )

    def _value_line(self, number: Value) -> Line:
        """A group of channels in a token."""
        b, cache = self.b, self.cache
        group, token = number % cache.value_groups, self.first + number // cache.value_groups
        steps = cache.row // cache.value_groups
        byte = group * steps
        return Line(
            steps,
            lambda step: self._number(token, (byte + step) * cache.each),
            lambda step: b.offset(self.codes, token * cache.row + byte + step),
            self._scales(group * cache.context + token),
            shared=True,
        )

    def _number(self, token: Value, channel: Value) -> Value:
        """Pointer to a number of a token that is as it was."""
        place = self.cache.slot(self.b, token) * self.cache.head_dim + channel
        return self.b.offset(self.exact, place * HALF)

    def _scales(self, place: Value) -> tuple[Value, Value]:
        scales, minima = (self.b.offset(one, place * HALF) for one in (self.scales, self.minima))
        return scales, minima

    def _read(self, pointer: Value) -> list[Value]:
        """The numbers of a step in f32."""
        b, each = self.b, self.cache.each
        if each == 1:
            return [b.to_float(b.load(pointer, f16))]
        return [b.to_float(one) for one in b.lanes_of(b.load(pointer, vec(each, f16)))]

    def _line(self, line: Line) -> None:
        """Scales, minima and codes of a line."""
        b, each, bits = self.b, self.cache.each, self.cache.format.bits
        found = self._ends(line)
        scales = [self._rounded(line, *pair, i) for i, pair in enumerate(found)]
        with b.for_(b.const(0, i32), line.steps, 1) as loop:
            byte = b.const(0, i32)
            values = self._read(line.read(loop.iv))
            pairs = scales * each if line.shared else scales
            for i, (value, pair) in enumerate(zip(values, pairs, strict=True)):
                byte = byte | (self._code(value, *pair) << (i * bits))
            b.store(b.trunc(byte, i8), line.code(loop.iv))

    def _ends(self, line: Line) -> list[tuple[Value, Value]]:
        """The least and the largest number for each scale of a line."""
        b, start = self.b, self._read(line.read(self.b.const(0, i32)))
        each = len(start)
        with b.for_(b.const(1, i32), line.steps, 1, [*start, *start]) as loop:
            seen = self._read(line.read(loop.iv))
            lows = map(b.min, loop.args[:each], seen)
            loop.yield_(*lows, *map(b.max, loop.args[each:], seen))
        low, high = loop.results[:each], loop.results[each:]
        if not line.shared:
            return list(zip(low, high, strict=True))
        return [(self._joined(low, b.min), self._joined(high, b.max))]

    @staticmethod
    def _joined(values: Sequence[Value], join: Callable[[Value, Value], Value]) -> Value:
        found = values[0]
        for value in values[1:]:
            found = join(found, value)
        return found

    def _rounded(self, line: Line, low: Value, high: Value, index: int) -> tuple[Value, Value]:
        """Store the scale and the minimum of a range; both as they are read."""
        b, kv = self.b, self.cache.format
        half = (high - low) / 2.0 * kv.spread_of(self.side)
        scale = b.to_float(half * 2.0 / float(2**kv.bits - 1), f16)
        minimum = b.to_float((high + low) / 2.0 - half, f16)
        for one, pointer in zip((scale, minimum), line.scales, strict=True):
            b.store(one, b.offset(pointer, index * HALF))
        return b.to_float(scale), b.to_float(minimum)

    def _code(self, value: Value, scale: Value, minimum: Value) -> Value:
        b, flat = self.b, scale.eq(0.0)
        ratio = (value - minimum) / b.select(flat, b.const(1.0, f32), scale)
        nearest = b.roundeven(b.select(flat, b.const(0.0, f32), ratio))
        most = float(2**self.cache.format.bits - 1)
        return b.fptosi(b.max(b.min(nearest, most), 0.0))
