"""Turning pages of a key-value cache into codes once none of their tokens is recent any more.

The arithmetic is that of `lowbit`'s quantizer under a stored minimum, operation by operation, so
that codes, scales and minima are those of the reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f16, f32, i32, vec
from nybble.backends.cpu.kernels.kv import KEY_BLOCK
from nybble.backends.cpu.kernels.kv_pages import KvPages
from nybble.backends.cpu.kernels.loops import largest_lane, tree
from nybble.dialects.sparse_attn.kv import KEYS, VALUES

_VECTOR = vec(KEY_BLOCK, f32)


@dataclass(frozen=True)
class KvQuantize:
    """Ring -> codes and scales of all pages that the rows of a call leave behind their boundary.

    The rows are in the ring already. Shared out by page and head.
    """

    pages: KvPages

    @property
    def buffers(self) -> list[BufferSpec]:
        """Those of the cache."""
        return self.pages.buffers

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
        position = page * self.pages.format.page
        self._keys(head, position)
        with self.b.for_(0, self.pages.format.page) as token:
            self._value(head, position + token.iv)

    def _keys(self, head: Value, position: Value) -> None:
        b, pages, ring = self.b, self.pages, self.pages.exact
        size, group = pages.format.page, pages.format.key_group
        block = ring.slot(b, position) // KEY_BLOCK
        with b.for_(0, pages.head_dim) as component:
            codes: list[Value] = []
            for start in range(0, size, group):
                at = [
                    ring.key_vector(head, block + i, component.iv)
                    for i in range(start // KEY_BLOCK, (start + group) // KEY_BLOCK)
                ]
                scales = pages.key_scales(head, (position + start) // group) + component.iv
                values = [b.to_float(b.buffer("k").vload(one, KEY_BLOCK)) for one in at]
                codes += self._group(KEYS, values, scales, pages.head_dim)
            for i, one in enumerate(codes):
                words = pages.key_words(head, position // KEY_BLOCK + i, component.iv)
                self._put(KEYS, words, component.iv, one)

    def _value(self, head: Value, position: Value) -> None:
        b, pages, ring = self.b, self.pages, self.pages.exact
        row = ring.value_row(head, ring.slot(b, position))
        codes: list[Value] = []
        for number in range(pages.value_groups):
            first = number * pages.value_group
            offsets = range(first, first + pages.value_group, KEY_BLOCK)
            values = [b.to_float(b.buffer("v").vload(row + one, KEY_BLOCK)) for one in offsets]
            scales = pages.value_scales(head, number, position)
            codes += self._group(VALUES, values, scales, pages.padded)
        for i, one in enumerate(codes):
            words = pages.value_words(head, position, i * KEY_BLOCK)
            self._put(VALUES, words, position, one)

    def _put(self, side: str, at: Value, number: Value, codes: Value) -> None:
        """Put codes, i32, at this number of a span; the first one clears the others."""
        b, number = self.b, number % self.pages.span
        words = b.buffer(f"{side[0]}_codes").view(i32)
        others = b.select(number > 0, words.vload(at, KEY_BLOCK), b.const(0, codes.type))
        bit = b.broadcast(b.from_index(self.pages.bit_of(number), i32), KEY_BLOCK)
        words.vstore(others | (codes << bit), at)

    def _group(self, side: str, values: Sequence[Value], at: Value, minima: int) -> list[Value]:
        """Store scale and minimum of a group; its codes, i32."""
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
        codes: list[Value] = []
        for value in values:
            ratio = b.select(flat, b.const(0.0, _VECTOR), (value - low) / wide)
            nearest = b.max(b.min(b.roundeven(ratio), most), 0.0)
            codes.append(b.fptosi(nearest, i32))
        return codes
