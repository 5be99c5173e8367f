"""Matrix times one f32 vector: weights are decoded column by column and multiplied as f32."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, vec
from nybble.backends.cpu.kernels.loops import tree
from nybble.backends.cpu.kernels.matmul.adding import Corrected, gemv_scratch
from nybble.backends.cpu.kernels.matmul.elements import FLOATS
from nybble.backends.cpu.kernels.matmul.epilogue import Epilogue
from nybble.backends.cpu.kernels.matmul.parts import for_each_tile
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import (
    UNROLL_COLUMNS,
    Block,
    CodeReader,
    divisor,
    reader,
)
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TILE, TileLayout

CHAINS = 2
"""Sums of a sub-tile that products are added to in turn, by default."""


@dataclass(frozen=True)
class GemvF32Tiles:
    """Sizes that do not change the result beyond the order of sums.

    columns: of codes that a round of the inner loop decodes. chains: see CHAINS. groups: in a round
    of the outer loop. ahead: bytes from what is read to what is prefetched; 0 for none.
    """

    columns: int
    chains: int = CHAINS
    groups: int = 1
    ahead: int = 0


def gemv_f32_tiles(spec: MatmulSpec) -> GemvF32Tiles:
    """A few columns a round."""
    layout = spec.layouts[0]
    if not isinstance(layout, TileLayout):
        return GemvF32Tiles(1)
    return GemvF32Tiles(divisor(layout.group, UNROLL_COLUMNS, layout.step))


def lower_gemv_f32(spec: MatmulSpec, name: str, tiles: GemvF32Tiles | None = None) -> FuncOp:
    """The kernel of an f32 spec with one token."""
    tiles = tiles or gemv_f32_tiles(spec)
    b = KernelBuilder(name, spec.buffers(gemv_scratch(spec)))
    epilogue = Epilogue(b, spec)
    corrected = Corrected(b, spec) if spec.added else None

    def body(parts: tuple[int, ...], tile: Value) -> None:
        sums = [_sums(b, spec, tiles, part, tile) for part in parts]
        if corrected is not None:
            sums = corrected(parts, tile, sums)
        for r in range(SUBTILES):
            row = tile * TILE + r * LANES
            epilogue.finish(parts[0], 0, row, tuple(one[r] for one in sums))

    for_each_tile(b, spec, body)
    return b.finish()


def _sums(
    b: KernelBuilder, spec: MatmulSpec, tiles: GemvF32Tiles, part: int, tile: Value
) -> list[Value]:
    """The products of a part's tile's four sub-tiles as f32 lanes."""
    layout, count = spec.layouts[part], tiles.chains
    if isinstance(layout, TileLayout):
        codes = CodeReader(b, b.buffer(f"w{part}"), layout, spec, tiles.ahead)
        return _Groups(b, codes, tiles).sums(tile)
    weights = reader(b, spec, part)
    zeros = [b.const(0.0, FLOATS)] * (count * SUBTILES)
    with b.for_(0, spec.cols, weights.step, inits=zeros) as loop:
        chains: list[Value] = []
        for r in range(SUBTILES):
            own = loop.args[count * r : count * (r + 1)]
            chains += _chained(b, weights.columns(tile, loop.iv, r), loop.iv, own)
        loop.yield_(*chains)
    return [_joined(loop.results[count * r : count * (r + 1)]) for r in range(SUBTILES)]


def _joined(chains: Sequence[Value]) -> Value:
    """The sum of the chains of a sub-tile."""
    return tree([*chains], lambda x, y: x + y)


def _chained(
    b: KernelBuilder,
    columns: Iterator[tuple[int, list[Value]]],
    first: Value,
    chains: Sequence[Value],
) -> list[Value]:
    """Some sums with the products of the columns from `first` on added in turn."""
    sums = [*chains]
    for offset, values in columns:
        for i, value in enumerate(values):
            x = b.broadcast(b.buffer("x").load(first + (offset + i)), LANES)
            sums = [*sums[1:], b.fma(value, x, sums[0])]
    return sums


class _Groups:
    """Codes group by group: `sum over g of S[g] * sum T(c) x + Z[g] * sum x`."""

    def __init__(self, b: KernelBuilder, reader: CodeReader, tiles: GemvF32Tiles):
        self.b = b
        self.tiles = tiles
        self.reader = reader
        self.layout = reader.layout

    def sums(self, tile: Value) -> list[Value]:
        """The products of a tile's four sub-tiles as f32 lanes."""
        b = self.b
        zeros = [b.const(0.0, FLOATS)] * SUBTILES
        with b.for_(0, self.layout.groups, self.tiles.groups, inits=zeros) as loop:
            sums: Sequence[Value] = loop.args
            for i in range(self.tiles.groups):
                sums = self._group(tile, loop.iv + i if i else loop.iv, sums)
            loop.yield_(*sums)
        return loop.results

    def _group(self, tile: Value, group: Value, sums: Sequence[Value]) -> list[Value]:
        """The sums with a group."""
        b, reader = self.b, self.reader
        block, first = reader.block(tile, group), group * self.layout.group
        added = [
            b.fma(self._dot(block, first, r), reader.scale(block, r), y) for r, y in enumerate(sums)
        ]
        if not self.layout.has_zero:
            return added
        total = b.broadcast(self._total(first), LANES)
        return [b.fma(reader.zero(block, r), total, y) for r, y in enumerate(added)]

    def _dot(self, block: Block, first: Value, subtile: int) -> Value:
        """`sum T(c) x` of a group in some chains."""
        b, layout, step = self.b, self.layout, self.tiles.columns
        zeros = [b.const(0.0, FLOATS)] * self.tiles.chains
        if step == layout.group:
            columns = self.reader.elements(block, block.at, subtile, step)
            return _joined(_chained(b, columns, first, zeros))
        with b.for_(0, layout.group // step, inits=zeros) as loop:
            codes = block.at + loop.iv * (step // layout.step * layout.step_bytes)
            columns = self.reader.elements(block, codes, subtile, step)
            loop.yield_(*_chained(b, columns, first + loop.iv * step, loop.args))
        return _joined(loop.results)

    def _total(self, first: Value) -> Value:
        """The sum of a group's activations."""
        b, group = self.b, self.layout.group
        width = divisor(group, LANES)
        with b.for_(0, group, width, inits=[b.const(0.0, vec(width, f32))]) as loop:
            loop.yield_(loop.args[0] + b.buffer("x").vload(first + loop.iv, width))
        return b.reduce("add", loop.results[0])
