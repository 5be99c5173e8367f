"""Rows of a weight matrix in its compute layout, decoded to f32: the token embedding.

Reading the layout that the matmul streams (`backends.cpu.packing`) lets a model whose output head
is tied to the embedding keep one copy of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu import isa as isa_levels
from nybble.backends.cpu.additions import NOTHING, Added
from nybble.backends.cpu.float_bytes import FLOAT_BYTES
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.builder import (
    BufferSpec,
    KernelBuilder,
    Value,
    bf16,
    f16,
    f32,
    i8,
    i32,
)
from nybble.backends.cpu.kernels.loops import for_each_row_part, padded_rows
from nybble.backends.cpu.kernels.matmul.codes import Codes, Kind, Table
from nybble.backends.cpu.kernels.matmul.elements import FLOATS, WORDS, element, one_of
from nybble.backends.cpu.kernels.matmul.expand import codes_of
from nybble.backends.cpu.split_floats import STEP, STEP_BYTES, SplitLayout
from nybble.backends.cpu.tile_layout import LANES, TILE, VECTOR, DenseLayout, TileLayout

_FLOATS = {"f32": f32, "f16": f16, "bf16": bf16}
_WORD = 4
"""Codes of one row that lie together in a plane."""


class _Row:
    """A row's scales of one group, each in all lanes."""

    def __init__(self, b: KernelBuilder, layout: TileLayout, source: Value, group: Value):
        self.b = b
        self.layout = layout
        self.lane = source % TILE
        self.run = source // TILE * layout.tile_bytes + group // layout.count * layout.run_bytes
        self.base = self.run + group % layout.count * layout.block_bytes

    def scale(self) -> Value:
        """S."""
        tree, start = self.layout.tree, self.layout.code_bytes
        if self.layout.by_subtile:
            return self._affine(0)
        if tree is None:
            return self._float(self.base + start)
        return self._byte(start, tree.offset) * self._shared(0)

    def zero(self) -> Value:
        """Z; 0 without one."""
        tree, start = self.layout.tree, self.layout.zero
        if not self.layout.has_zero:
            return self.b.const(0.0, FLOATS)
        if self.layout.by_subtile:
            return -(self._affine(0) * self._affine(1))
        if self.layout.integer_zero:
            return -(self.scale() * self._byte(start, 0))
        if tree is None:
            return self._float(self.base + start)
        return self._byte(start, tree.zero_offset) * self._shared(1)

    def _shared(self, kind: int) -> Value:
        shared = self.layout.count * self.layout.block_bytes + kind * self.layout.float_bytes
        return self._float(self.run + shared)

    def _affine(self, kind: int) -> Value:
        """`base * c + low` of scales or zero points, under the floats of the row's sub-tile."""
        b, layout = self.b, self.layout
        both = b.zext(b.buffer("table").load(self.base + layout.code_bytes + self.lane), i32)
        small = b.broadcast(b.sitofp(both.shr(4) if kind else both & 15), LANES)
        first = self.lane // LANES * layout.subtile_floats + 2 * kind
        base, low = (self._float(self.base + layout.zero, first + i) for i in (0, 1))
        return small * base + low

    def _float(self, place: Value, index: Value | None = None) -> Value:
        """The float at an index from a byte on; at the row's lane if none is given."""
        floats = self.b.buffer("table").view(_FLOATS[self.layout.scale])
        at = place // FLOAT_BYTES[self.layout.scale]
        value = floats.load(at + (self.lane if index is None else index))
        return self.b.broadcast(self.b.to_float(value), LANES)

    def _byte(self, start: int, offset: int) -> Value:
        code = self.b.buffer("table").load(self.base + start + self.lane)
        number = self.b.sitofp(self.b.zext(code, i32) - offset)
        return self.b.broadcast(number, LANES)


@dataclass(frozen=True)
class Embed:
    """ids i32 [n], table (bytes of the weight's layout) -> out f32 [n, cols] = scale * table[ids].

    weight, shape: of the table, [vocabulary, cols]. Ids are in 0 .. vocabulary - 1: the caller
    checks. A decode kernel (rows 1) is shared out by groups of columns, prefill by rows.
    """

    weight: Kind
    shape: tuple[int, int]
    rows: int
    scale: float = 1.0
    isa: Isa = isa_levels.BASELINE
    added: Added = NOTHING

    @cached_property
    def layout(self) -> TileLayout | DenseLayout | SplitLayout:
        """The layout of the table."""
        return self.weight.layout(*self.shape)

    @property
    def buffers(self) -> list[BufferSpec]:
        """ids, table, out."""
        rows = padded_rows(self.rows)
        return [
            BufferSpec("ids", rows, i32),
            BufferSpec("table", self.layout.size + self.added.layout(*self.shape).size, i8),
            BufferSpec("out", rows * self.layout.cols, f32),
        ]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        layout = self.layout
        parts = layout.groups if isinstance(layout, TileLayout) else layout.cols

        def row_part(row: Value, bounds: tuple[Value, Value]) -> None:
            source = b.to_index(b.buffer("ids").load(row))
            with b.for_(*bounds) as loop:
                if isinstance(layout, TileLayout):
                    self._group(b, layout, source, row, loop.iv)
                elif isinstance(layout, SplitLayout):
                    self._split(b, layout, source, row, loop.iv)
                else:
                    self._element(b, layout, source, row, loop.iv)
            if self.added.permille:
                width = self.shape[1] // parts
                self._add_outliers(b, source, row, (bounds[0] * width, bounds[1] * width))

        for_each_row_part(b, self.rows, parts, row_part)
        return b.finish()

    def _scaled(self, value: Value) -> Value:
        return value if self.scale == 1.0 else value * self.scale

    def _element(
        self, b: KernelBuilder, layout: DenseLayout, source: Value, row: Value, column: Value
    ) -> None:
        table = b.buffer("table").view(_FLOATS[layout.dtype])
        at = (source // TILE * layout.cols + column) * TILE + source % TILE
        value = b.to_float(table.load(at))
        b.buffer("out").store(self._scaled(value), row * layout.cols + column)

    def _split(
        self, b: KernelBuilder, layout: SplitLayout, source: Value, row: Value, column: Value
    ) -> None:
        table, start = b.buffer("table"), source // TILE * layout.tile_bytes
        at = start + VECTOR + column // STEP * STEP_BYTES + source % TILE * _WORD + column % _WORD
        half = column % STEP // _WORD
        low = b.zext(table.load(at + half * (TILE * _WORD)), i32)
        codes = b.zext(table.load(at + 2 * TILE * _WORD), i32)
        code = codes.shr(b.from_index(half * 4, i32)) & 15
        high = b.zext(table.load(start + b.to_index(code)), i32)
        value = b.bitcast(high << 24 | low << 16, f32)
        b.buffer("out").store(self._scaled(value), row * layout.cols + column)

    def _add_outliers(
        self, b: KernelBuilder, source: Value, row: Value, columns: tuple[Value, Value]
    ) -> None:
        """Add those of a row that are in this thread's columns."""
        arrays = self.added.layout(*self.shape)
        starts, places, values = (
            b.buffer("table").view(kind, self.layout.size + place, size)
            for kind, place, size in zip((i32, i32, f32), arrays.places, arrays.sizes, strict=False)
        )
        first, last = (b.to_index(starts.load(source + i)) for i in (0, 1))
        with b.for_(first, last) as each:
            column = b.to_index(places.load(each.iv))
            with b.if_(column < columns[1]), b.if_(column >= columns[0]):
                out, at = b.buffer("out"), row * self.shape[1] + column
                out.store(out.load(at) + self._scaled(values.load(each.iv)), at)

    def _group(
        self, b: KernelBuilder, layout: TileLayout, source: Value, row: Value, group: Value
    ) -> None:
        row_of = _Row(b, layout, source, group)
        base, scale, zero = row_of.base, row_of.scale(), row_of.zero()
        chosen = self._chosen(b, layout, base, source)
        first = row * layout.cols + group * layout.group
        with b.for_(0, layout.steps) as step:
            at = base + step.iv * layout.step_bytes
            assert isinstance(self.weight, Codes)
            words = self._words(b, layout, at, source)
            codes = codes_of(b, layout, self.weight.zero_code, self.isa, words)
            for index, word in enumerate(codes):
                value = b.fma(self._decoded(b, word, chosen), scale, zero)
                to = first + step.iv * layout.step + index * _WORD
                b.buffer("out").vstore(self._scaled(b.slice(value, 0, _WORD)), to)

    def _words(
        self, b: KernelBuilder, layout: TileLayout, at: Value, source: Value
    ) -> Callable[[int, int], Value]:
        """What reads the row's four bytes of a vector of a piece in the step at a byte."""
        words = b.buffer("table").view(i32)

        def word(piece: int, vector: int) -> Value:
            byte = at + (layout.piece(piece) + vector * TILE * _WORD)
            return words.load(byte // _WORD + source % TILE)

        return word

    def _decoded(self, b: KernelBuilder, word: Value, chosen: Value | None) -> Value:
        """T of the four codes of a word, over and over."""
        assert isinstance(self.weight, Codes)
        places = b.const([8 * (i % _WORD) for i in range(LANES)], WORDS)
        codes = b.broadcast(word, LANES).shr(places)
        return element(b, self.weight, self.isa).at(codes, 0, chosen)

    def _chosen(
        self, b: KernelBuilder, layout: TileLayout, base: Value, source: Value
    ) -> Value | None:
        assert isinstance(self.weight, Codes)
        table = self.weight.table
        if not isinstance(table, Table) or not table.specials:
            return None
        choice = b.zext(b.buffer("table").load(base + layout.choice + source % TILE), i32)
        return one_of(b, table.specials, b.broadcast(choice, LANES))
