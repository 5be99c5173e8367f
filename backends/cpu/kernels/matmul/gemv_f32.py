"""Matrix times one f32 vector: weights are decoded column by column and multiplied as f32."""

from collections.abc import Iterator, Sequence

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, vec
from nybble.backends.cpu.kernels.matmul.adding import Corrected, gemv_scratch
from nybble.backends.cpu.kernels.matmul.elements import FLOATS
from nybble.backends.cpu.kernels.matmul.epilogue import Epilogue
from nybble.backends.cpu.kernels.matmul.parts import for_each_tile
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weight_reader import WeightReader
from nybble.backends.cpu.kernels.matmul.weights import Block, CodeReader, divisor, reader
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TILE


def lower_gemv_f32(spec: MatmulSpec, name: str) -> FuncOp:
    """The kernel of an f32 spec with one token."""
    b = KernelBuilder(name, spec.buffers(gemv_scratch(spec)))
    epilogue = Epilogue(b, spec)
    corrected = Corrected(b, spec) if spec.added else None

    def body(parts: tuple[int, ...], tile: Value) -> None:
        sums = [_sums(b, spec, reader(b, spec, part), tile) for part in parts]
        if corrected is not None:
            sums = corrected(parts, tile, sums)
        for r in range(SUBTILES):
            row = tile * TILE + r * LANES
            epilogue.finish(parts[0], 0, row, tuple(one[r] for one in sums))

    for_each_tile(b, spec, body)
    return b.finish()


def _sums(b: KernelBuilder, spec: MatmulSpec, weights: WeightReader, tile: Value) -> list[Value]:
    """The products of a tile's four sub-tiles as f32 lanes."""
    if isinstance(weights, CodeReader):
        return _Groups(b, spec, weights).sums(tile)
    zeros = [b.const(0.0, FLOATS)] * (2 * SUBTILES)
    with b.for_(0, spec.cols, weights.step, inits=zeros) as loop:
        chains: list[Value] = []
        for r in range(SUBTILES):
            pair = loop.args[2 * r : 2 * r + 2]
            chains += _chained(b, weights.columns(tile, loop.iv, r), loop.iv, pair)
        loop.yield_(*chains)
    return [loop.results[2 * r] + loop.results[2 * r + 1] for r in range(SUBTILES)]


def _chained(
    b: KernelBuilder,
    columns: Iterator[tuple[int, list[Value]]],
    first: Value,
    pair: Sequence[Value],
) -> list[Value]:
    """Two sums with the products of the columns from `first` on added in turn."""
    even, odd = pair
    for offset, values in columns:
        for i, value in enumerate(values):
            x = b.broadcast(b.buffer("x").load(first + (offset + i)), LANES)
            even, odd = odd, b.fma(value, x, even)
    return [even, odd]


class _Groups:
    """Codes group by group: `sum over g of S[g] * sum T(c) x + Z[g] * sum x`."""

    def __init__(self, b: KernelBuilder, spec: MatmulSpec, reader: CodeReader):
        self.b = b
        self.reader = reader
        self.layout = reader.layout

    def sums(self, tile: Value) -> list[Value]:
        """The products of a tile's four sub-tiles as f32 lanes."""
        b, reader = self.b, self.reader
        zeros = [b.const(0.0, FLOATS)] * SUBTILES
        with b.for_(0, self.layout.groups, inits=zeros) as loop:
            block, first = reader.block(tile, loop.iv), loop.iv * self.layout.group
            sums = [
                b.fma(self._dot(block, first, r), reader.scale(block, r), y)
                for r, y in enumerate(loop.args)
            ]
            if self.layout.has_zero:
                total = b.broadcast(self._total(first), LANES)
                sums = [b.fma(reader.zero(block, r), total, y) for r, y in enumerate(sums)]
            loop.yield_(*sums)
        return loop.results

    def _dot(self, block: Block, first: Value, subtile: int) -> Value:
        """`sum T(c) x` of a group in two chains."""
        b, layout, step = self.b, self.layout, self.reader.step
        zeros = [b.const(0.0, FLOATS)] * 2
        if step == layout.group:
            columns = self.reader.elements(block, block.at, subtile, step)
            even, odd = _chained(b, columns, first, zeros)
            return even + odd
        with b.for_(0, layout.group // step, inits=zeros) as loop:
            codes = block.at + loop.iv * (step // layout.step * layout.step_bytes)
            columns = self.reader.elements(block, codes, subtile, step)
            loop.yield_(*_chained(b, columns, first + loop.iv * step, loop.args))
        return loop.results[0] + loop.results[1]

    def _total(self, first: Value) -> Value:
        """The sum of a group's activations."""
        b, group = self.b, self.layout.group
        width = divisor(group, LANES)
        with b.for_(0, group, width, inits=[b.const(0.0, vec(width, f32))]) as loop:
            loop.yield_(loop.args[0] + b.buffer("x").vload(first + loop.iv, width))
        return b.reduce("add", loop.results[0])
