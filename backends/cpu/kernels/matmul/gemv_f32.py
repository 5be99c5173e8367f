"""Matrix times one f32 vector: weights are decoded column by column and multiplied as f32."""

from collections.abc import Sequence

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value
from nybble.backends.cpu.kernels.matmul.epilogue import Epilogue
from nybble.backends.cpu.kernels.matmul.parts import for_each_tile
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import FLOATS, SUBTILES, WeightReader, reader
from nybble.backends.cpu.packing import LANES, TILE


def lower_gemv_f32(spec: MatmulSpec, name: str) -> FuncOp:
    """The kernel of an f32 spec with one token."""
    b = KernelBuilder(name, spec.buffers())
    epilogue = Epilogue(b, spec)

    def body(parts: tuple[int, ...], tile: Value) -> None:
        sums = [_sums(b, spec, reader(b, spec, part), tile) for part in parts]
        for r in range(SUBTILES):
            row = tile * TILE + r * LANES
            epilogue.finish(parts[0], 0, row, tuple(one[r] for one in sums))

    for_each_tile(b, spec, body)
    return b.finish()


def _sums(b: KernelBuilder, spec: MatmulSpec, weights: WeightReader, tile: Value) -> list[Value]:
    """The products of a tile's four sub-tiles, each summed over columns in two chains."""
    zeros = [b.const(0.0, FLOATS)] * (2 * SUBTILES)
    with b.for_(0, spec.cols, weights.step, inits=zeros) as loop:
        chains: list[Sequence[Value]] = []
        for r in range(SUBTILES):
            pair = loop.args[2 * r : 2 * r + 2]
            for offset, values in weights.columns(tile, loop.iv, r):
                for i, value in enumerate(values):
                    x = b.broadcast(b.buffer("x").load(loop.iv + (offset + i)), LANES)
                    pair[i % 2] = b.fma(value, x, pair[i % 2])
            chains.append(pair)
        loop.yield_(*(one for pair in chains for one in pair))
    return [loop.results[2 * r] + loop.results[2 * r + 1] for r in range(SUBTILES)]
