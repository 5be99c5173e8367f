"""Matrix times one f32 vector: weights are decoded column by column and multiplied as f32."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, vec
from nybble.backends.cpu.kernels.loops import divisor, tree
from nybble.backends.cpu.kernels.matmul.adding import gemv_scratch
from nybble.backends.cpu.kernels.matmul.elements import FLOATS
from nybble.backends.cpu.kernels.matmul.groups import Groups
from nybble.backends.cpu.kernels.matmul.side_by_side import multiply, streams
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import UNROLL_COLUMNS, Block, CodeReader, reader
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TileLayout

CHAINS = 2
"""Sums of a sub-tile that products are added to in turn, by default."""


@dataclass(frozen=True)
class GemvF32Tiles:
    """Sizes that do not change the result beyond the order of sums.

    columns: of codes that a round of the inner loop decodes. chains: see CHAINS. groups: in a round
    of the outer loop. ahead: bytes from what is read to what is prefetched; 0 for none. tiles: how
    many go side by side.
    """

    columns: int
    chains: int = CHAINS
    groups: int = 1
    ahead: int = 0
    tiles: int = 1


def gemv_f32_tiles(spec: MatmulSpec) -> GemvF32Tiles:
    """A few columns of codes a round; floats, which only have to be read, side by side.

    Decoding is what codes wait for, and the lines of a sub-tile do not follow each other: two tiles
    of codes took 1.4 to 1.8 times as long on a Zen 3, where two of bf16 took 0.7 of the time.
    """
    layout = spec.layouts[0]
    if not isinstance(layout, TileLayout):
        return GemvF32Tiles(1, tiles=streams(spec))
    columns = divisor(layout.group, UNROLL_COLUMNS, layout.step)
    return GemvF32Tiles(columns, ahead=spec.isa.ahead)


def lower_gemv_f32(spec: MatmulSpec, name: str, tiles: GemvF32Tiles | None = None) -> FuncOp:
    """The kernel of an f32 spec with one token."""
    tiles = tiles or gemv_f32_tiles(spec)
    b = KernelBuilder(name, spec.buffers(gemv_scratch(spec)))

    def sums(part: int, every: Sequence[Value], token: Value) -> list[Value]:
        layout = spec.layouts[part]
        if not isinstance(layout, TileLayout):
            return _plain(b, spec, tiles.chains, part, every)
        codes = CodeReader(b, b.buffer(f"w{part}"), layout, spec, tiles.ahead)
        return _Codes(codes, tiles).sums(every, token)

    multiply(b, spec, tiles.tiles, sums)
    return b.finish()


def _plain(
    b: KernelBuilder, spec: MatmulSpec, chains: int, part: int, tiles: Sequence[Value]
) -> list[Value]:
    """The products of the sub-tiles of floats as f32 lanes."""
    weights = reader(b, spec, part)
    every = [*product(tiles, range(SUBTILES))]
    zeros = [b.const(0.0, FLOATS)] * (chains * len(every))
    with b.for_(0, spec.cols, weights.step, inits=zeros) as loop:
        sums: list[Value] = []
        for i, (tile, r) in enumerate(every):
            own = loop.args[chains * i : chains * (i + 1)]
            sums += _chained(b, weights.columns(tile, loop.iv, r), loop.iv, own)
        loop.yield_(*sums)
    return [_joined(loop.results[i : i + chains]) for i in range(0, len(zeros), chains)]


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


class _Codes(Groups):
    """Codes group by group: `sum over g of S[g] * sum T(c) x + Z[g] * sum x`."""

    def __init__(self, reader: CodeReader, tiles: GemvF32Tiles):
        super().__init__(reader, reader.layout.group, tiles.groups)
        self.tiles = tiles

    def add(self, blocks: Sequence[Block], first: Value, sums: Sequence[Value]) -> list[Value]:
        """See Groups."""
        b, reader = self.b, self.reader
        dots = self.of_each(blocks, lambda block, r: self._dot(block, first, r))
        scales = self.of_each(blocks, reader.scale)
        added = [b.fma(d, f, y) for d, f, y in zip(dots, scales, sums, strict=True)]
        if not self.layout.has_zero:
            return added
        total = b.broadcast(self._total(first), LANES)
        zeros = self.of_each(blocks, reader.zero)
        return [b.fma(zero, total, y) for zero, y in zip(zeros, added, strict=True)]

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
