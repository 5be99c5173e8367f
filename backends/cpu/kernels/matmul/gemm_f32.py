"""Exact f32 products of decoded weights with many f32 token rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32
from nybble.backends.cpu.kernels.loops import divisor
from nybble.backends.cpu.kernels.matmul.gemm import (
    GemmTiles,
    Product,
    Scratch,
    Sums,
    column_block,
    register_tiles,
)
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import reader
from nybble.backends.cpu.tile_layout import LANES, TILE


def f32_tiles(isa: Isa) -> GemmTiles:
    """Sizes by the number of registers."""
    if isa.vector_bits * isa.registers >= 512 * 32:
        return GemmTiles(columns=128, tiles=1, subtiles=4, tokens=4, unroll=4)
    return GemmTiles(columns=256, tiles=1, subtiles=2, tokens=2, unroll=2)


@dataclass
class F32Product(Product):
    """Weights decoded to f32 [column][64 rows], one fused multiply-add per element."""

    spec: MatmulSpec
    tiles: GemmTiles
    columns: int = field(init=False)

    def __post_init__(self) -> None:
        step = getattr(self.spec.weight, "group", 1)
        self.columns = column_block(self.spec, self.tiles.columns, step)
        self.slots = self.tiles.tiles

    def reserve(self, scratch: Scratch) -> None:
        """See Product: f32 [column][64] per slot."""
        self.weights_at = scratch.take(self.slots * self.columns * TILE * 4)

    def begin(self, b: KernelBuilder, scratch: Buffer) -> None:
        """See Product."""
        self.b = b
        self.decoded = scratch.view(f32, self.weights_at, self.slots * self.columns * TILE)

    def unpack(self, part: int, tile: Value, first: Value, slot: Value) -> None:
        """See Product."""
        size = self.columns * TILE
        out = self.decoded.part(slot * size, size)
        weights = reader(self.b, self.spec, part, self.tiles.ahead * self.columns)
        weights.unpack_f32(tile, first, self.columns, out)

    def multiply(self, sums: Sums, first: Value, slots: Value) -> None:
        """See Product."""
        with register_tiles(self.b, self.tiles, slots) as at:
            self._block(sums, first, at)

    def _block(self, sums: Sums, first: Value, at: tuple[Value, Value, Value]) -> None:
        b = self.b
        slot, subtile, token = at
        places = [
            sums.at(token + c, slot, subtile + r)
            for c in range(self.tiles.tokens)
            for r in range(self.tiles.subtiles)
        ]
        inits = [sums.buffer.vload(place, LANES) for place in places]
        unroll = divisor(self.columns, self.tiles.unroll)
        base = slot * (self.columns * TILE) + subtile * LANES
        row = token * self.spec.cols + first
        with b.for_(0, self.columns, unroll, inits=inits) as loop:
            loop.yield_(*self._steps(base + loop.iv * TILE, row + loop.iv, loop.args, unroll))
        for place, value in zip(places, loop.results, strict=True):
            sums.buffer.vstore(value, place)

    def _steps(self, base: Value, row: Value, sums: Sequence[Value], count: int) -> list[Value]:
        b, subtiles = self.b, self.tiles.subtiles
        sums = [*sums]
        for step in range(count):
            weights = [
                self.decoded.vload(base + (step * TILE + r * LANES), LANES) for r in range(subtiles)
            ]
            for c in range(self.tiles.tokens):
                x = b.broadcast(b.buffer("x").load(row + (c * self.spec.cols + step)), LANES)
                for r in range(subtiles):
                    i = c * subtiles + r
                    sums[i] = b.fma(weights[r], x, sums[i])
        return sums
