"""Turning pages of a key-value cache into codes once none of their tokens is recent any more.

The arithmetic is that of `lowbit`'s quantizer under a stored minimum, operation by operation, so
that codes, scales and minima are those of the reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f16, f32, i32, vec
from nybble.backends.cpu.kernels.kv import KEY_BLOCK
from nybble.backends.cpu.kernels.kv_correct import Correct, correction_buffers
from nybble.backends.cpu.kernels.kv_pages import KvPages
from nybble.backends.cpu.kernels.loops import largest_lane, tree
from nybble.dialects.sparse_attn.kv import KEYS, VALUES

_VECTOR = vec(KEY_BLOCK, f32)


@dataclass(frozen=True, eq=False)
class Line:
    """Numbers that are rounded one after the other: see `sparse_attn.kv.corrections`.

    position: of the first token of the page. index: of the line in it.
    """

    side: str
    head: Value
    position: Value
    index: Value
    numbers: list[Value]


@dataclass(frozen=True)
class KvQuantize:
    """Ring -> codes and scales of all pages that the rows of a call leave behind their boundary.

    The rows are in the ring already. Shared out by page and head. threads: the most that call it.
    """

    pages: KvPages
    threads: int = 1

    @property
    def buffers(self) -> list[BufferSpec]:
        """Those of the cache, and a scratch where there are corrections."""
        return [*self.pages.buffers, *correction_buffers(self.pages, self.threads)]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        pages, heads = PageCodes(b, self.pages), self.pages.kv_heads
        first, last = pages.left_behind(b.n)
        with b.for_(*b.partition((last - first) * heads)) as unit:
            pages.quantize(unit.iv % heads, first + unit.iv // heads)
        return b.finish()


class PageCodes:
    """Emits the quantization of pages into a kernel that has the cache's buffers."""

    def __init__(self, b: KernelBuilder, pages: KvPages) -> None:
        self.b, self.pages = b, pages

    def left_behind(self, rows: Value) -> tuple[Value, Value]:
        """The first page that becomes codes with rows `pos` .. `pos + rows`, and that after it."""
        b, size = self.b, self.pages.format.page
        before = b.select(b.pos > 0, b.pos - 1, 0)
        last = b.pos + rows - 1
        first, end = (self.pages.boundary(b, one) // size for one in (before, last))
        return first, end

    def quantize(self, head: Value, page: Value) -> None:
        """Keys and values of a head in a page."""
        b, size = self.b, self.pages.format.page
        for side, lines in ((KEYS, self.pages.head_dim), (VALUES, size)):
            correct, start = None, b.const(0)
            if self.pages.format.corrected(side):
                correct = Correct(b, self.pages, side)
                start = correct.record.start(head, page)
            with b.for_(0, lines) as line:
                one = Line(
                    side, head, page * size, line.iv, self._numbers(side, head, page, line.iv)
                )
                self._line(one, correct, start)
            if correct is not None:
                correct.factor(start)

    def _numbers(self, side: str, head: Value, page: Value, line: Value) -> list[Value]:
        """A channel of keys over a page, or a token's values."""
        b, pages, ring = self.b, self.pages, self.pages.exact
        slot = ring.slot(b, page * pages.format.page)
        if side == KEYS:
            first, count = slot // KEY_BLOCK, pages.format.page // KEY_BLOCK
            places = [ring.key_vector(head, first + i, line) for i in range(count)]
        else:
            row = ring.value_row(head, slot + line)
            places = [row + i for i in range(0, pages.head_dim, KEY_BLOCK)]
        return [b.to_float(b.buffer(side[0]).vload(one, KEY_BLOCK)) for one in places]

    def _line(self, line: Line, correct: Correct | None, start: Value) -> None:
        """Codes of a line of numbers, and what corrects them."""
        numbers, ends = line.numbers, list[Value]()
        if self.pages.format.outliers:
            assert correct is not None
            numbers, ends = correct.without_ends(numbers)
        meant = [self.b.const(0.0, _VECTOR)] * len(numbers)
        if self.pages.format.has_codes(line.side):
            meant = self._coded(line, numbers)
        if correct is None:
            return
        correct.keep_line(line.index, [x - y for x, y in zip(numbers, meant, strict=True)])
        if ends:
            left = [x - y for x, y in zip(line.numbers, meant, strict=True)]
            correct.keep_ends(start, line.index, ends, left)

    def _coded(self, line: Line, numbers: list[Value]) -> list[Value]:
        """Store the codes of the numbers of a line; what they mean."""
        pages, meant = self.pages, list[Value]()
        size = pages.format.key_group if line.side == KEYS else pages.value_group
        count = size // KEY_BLOCK
        for group in range(len(numbers) // count):
            part = numbers[group * count : (group + 1) * count]
            if line.side == KEYS:
                first = line.position // size + group
                at, minima = pages.key_scales(line.head, first) + line.index, pages.head_dim
            else:
                at = pages.value_scales(line.head, group, line.position + line.index)
                minima = pages.padded
            codes, values = self._group(line.side, part, at, minima)
            meant += values
            for i, one in enumerate(codes, group * count):
                if line.side == KEYS:
                    words = pages.key_words(line.head, line.position // KEY_BLOCK + i, line.index)
                else:
                    position = line.position + line.index
                    words = pages.value_words(line.head, position, i * KEY_BLOCK)
                self._put(line.side, words, line.index, one)
        return meant

    def _put(self, side: str, at: Value, number: Value, codes: Value) -> None:
        """Put codes, i32, at this number of a span; the first one clears the others."""
        b, number = self.b, number % self.pages.span
        words = b.buffer(f"{side[0]}_codes").view(i32)
        others = b.select(number > 0, words.vload(at, KEY_BLOCK), b.const(0, codes.type))
        bit = b.broadcast(b.from_index(self.pages.bit_of(number), i32), KEY_BLOCK)
        words.vstore(others | (codes << bit), at)

    def _group(
        self, side: str, values: Sequence[Value], at: Value, minima: int
    ) -> tuple[list[Value], list[Value]]:
        """Store scale and minimum of a group; its codes, i32, and what they mean."""
        b, most = self.b, float(2**self.pages.format.bits - 1)
        top = largest_lane(b, tree([*values], b.max))
        bottom = -largest_lane(b, -tree([*values], b.min))
        half = (top - bottom) / 2.0 * self.pages.format.spread_of(side)
        scale = b.to_float(half * 2.0 / most, f16)
        minimum = b.to_float((top + bottom) / 2.0 - half, f16)
        scales = b.buffer(f"{side[0]}_scales")
        scales.store(scale, at)
        scales.store(minimum, at + minima)
        wide, low = (b.broadcast(b.to_float(one), KEY_BLOCK) for one in (scale, minimum))
        flat = wide.eq(0.0)
        wide = b.select(flat, b.const(1.0, _VECTOR), wide)
        codes, meant = list[Value](), list[Value]()
        for value in values:
            ratio = b.select(flat, b.const(0.0, _VECTOR), (value - low) / wide)
            nearest = b.max(b.min(b.roundeven(ratio), most), 0.0)
            codes.append(b.fptosi(nearest, i32))
            meant.append(b.select(flat, low, nearest * wide + low))
        return codes, meant
