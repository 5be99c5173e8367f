"""Rows of a weight matrix in its compute layout, decoded to f32: the token embedding.

Reading the layout that the matmul streams (`backends.cpu.packing`) lets a model whose output head
is tied to the embedding keep one copy of it.
"""

from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

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
from nybble.backends.cpu.packing import FLOAT_BYTES, TILE, DenseLayout, TileLayout

_FLOATS = {"f32": f32, "f16": f16, "bf16": bf16}
_WORD = 4
"""Codes of one row that lie together in a plane."""


@dataclass(frozen=True)
class Embed:
    """ids i32 [n], table (bytes of `layout`) -> out f32 [n, cols] = scale * table[ids].

    zero_point: of the codes, T(c) = c - zero_point. Ids are in 0 .. layout.rows - 1: the caller
    checks. A decode kernel (rows 1) is shared out by groups of columns, prefill by rows.
    """

    layout: TileLayout | DenseLayout
    rows: int
    scale: float = 1.0
    zero_point: int = 0

    @property
    def buffers(self) -> list[BufferSpec]:
        """ids, table, out."""
        rows = padded_rows(self.rows)
        return [
            BufferSpec("ids", rows, i32),
            BufferSpec("table", self.layout.size, i8),
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
                else:
                    self._element(b, layout, source, row, loop.iv)

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

    def _group(
        self, b: KernelBuilder, layout: TileLayout, source: Value, row: Value, group: Value
    ) -> None:
        table = b.buffer("table")
        base = source // TILE * layout.tile_bytes + group * layout.block_bytes
        floats = table.view(_FLOATS[layout.scale])
        at_scale = (base + layout.code_bytes) // FLOAT_BYTES[layout.scale] + source % TILE
        scale = b.broadcast(b.to_float(floats.load(at_scale)), _WORD)
        zero = None
        if layout.has_zero:
            zero = b.broadcast(b.to_float(floats.load(at_scale + TILE)), _WORD)
        with b.for_(0, layout.vectors) as vector:
            at = base + (vector.iv * TILE + source % TILE) * _WORD
            word = table.vload(at, _WORD)
            for plane in range(layout.planes):
                value = self._decoded(b, layout, word, plane) * scale
                value = value if zero is None else value + zero
                column = (vector.iv * layout.planes + plane) * _WORD
                to = row * layout.cols + group * layout.group + column
                b.buffer("out").vstore(self._scaled(value), to)

    def _decoded(self, b: KernelBuilder, layout: TileLayout, word: Value, plane: int) -> Value:
        codes = word if layout.planes == 1 else word.shr(plane * layout.width)
        if layout.planes > 1:
            codes = codes & ((1 << layout.width) - 1)
        return b.sitofp(b.zext(codes, i32) - self.zero_point)
