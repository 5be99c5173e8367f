"""Bit planes of weights times one row of bipolar activations."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.buffers import Buffer, BufferSpec
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, vec
from nybble.backends.cpu.kernels.loops import divisor
from nybble.backends.cpu.kernels.matmul.bitserial import BitserialSpec
from nybble.backends.cpu.kernels.matmul.bitserial_dot import Counting
from nybble.backends.cpu.kernels.matmul.bitserial_weights import PlaneReader
from nybble.backends.cpu.kernels.matmul.side_by_side import multiply, streams
from nybble.backends.cpu.kernels.matmul.weights import SUBTILES
from nybble.backends.cpu.tile_layout import LANES, TILE


@dataclass(frozen=True)
class BitGemvTiles:
    """Sizes that do not change the result.

    counts: vectors of counts that a loop keeps, at most, if one strip's fit. pairs: plane pairs
    that a round of the inner loop counts in all strips, at most. ahead: bytes between what is read
    and what is prefetched. tiles: how many go side by side.
    """

    counts: int
    pairs: int = 64
    ahead: int = 4096
    tiles: int = 1


SUM_BYTES = TILE * 4
"""Bytes of scratch for the sums of one tile."""


def bit_gemv_tiles(spec: BitserialSpec) -> BitGemvTiles:
    """Counts in half of all registers; side by side, as memory is read fastest."""
    isa, tiles = spec.isa, streams(spec)
    if tiles > 1:
        return BitGemvTiles(isa.registers // 2, ahead=isa.ahead, tiles=tiles)
    return BitGemvTiles(isa.registers // 2)


def bit_gemv_buffers(spec: BitserialSpec, tiles: BitGemvTiles | None = None) -> list[BufferSpec]:
    """The memref arguments of `lower_bit_gemv`, in order."""
    return spec.buffers((tiles or bit_gemv_tiles(spec)).tiles * SUM_BYTES)


def lower_bit_gemv(spec: BitserialSpec, name: str, tiles: BitGemvTiles | None = None) -> FuncOp:
    """The kernel of a spec with one token."""
    sizes = tiles or bit_gemv_tiles(spec)
    b = KernelBuilder(name, bit_gemv_buffers(spec, sizes))

    def sums(part: int, every: Sequence[Value], _: Value) -> list[Value]:
        return _Tiles(b, spec, part, sizes).sums(every)

    multiply(b, spec, sizes.tiles, sums)
    return b.finish()


class _Tiles:
    """One part's tiles, side by side, times the one activation row."""

    def __init__(self, b: KernelBuilder, spec: BitserialSpec, part: int, tiles: BitGemvTiles):
        self.b = b
        self.spec = spec
        self.counting = Counting(b, spec)
        self.lanes = self.counting.lanes
        weights, layout = b.buffer(f"w{part}"), spec.layouts[part]
        self.reader = PlaneReader(b, weights, layout, self.lanes, tiles.ahead)
        self.strips = divisor(TILE // self.lanes, max(1, tiles.counts // self.counting.weights))
        pairs = spec.weight.bits * spec.bits * self.strips
        self.unroll = max(1, tiles.pairs // pairs)
        self.own = tiles.tiles * SUM_BYTES

    def sums(self, tiles: Sequence[Value]) -> list[Value]:
        """The products of the sub-tiles of the first tile, then of the next, as f32 lanes."""
        b = self.b
        every = [self._room(i) for i in range(len(tiles))]
        for sums, row in product(every, range(0, TILE, self.lanes)):
            sums.vstore(b.const(0.0, vec(self.lanes, f32)), row)
        with b.for_(0, self.spec.groups) as group:
            blocks = [self.reader.block(tile, group.iv) for tile in tiles]
            with b.for_(0, TILE, self.strips * self.lanes) as row:
                for block, sums in zip(blocks, every, strict=True):
                    self._group(block, group.iv, row.iv, sums)
        return [sums.vload(r * LANES, LANES) for sums, r in product(every, range(SUBTILES))]

    def _room(self, index: int) -> Buffer:
        """Where this thread keeps the sums of a tile: of one part at a time."""
        scratch = self.b.buffer("scratch")
        return scratch.view(f32, self.b.tid * self.own + index * SUM_BYTES, TILE)

    def _group(self, block: Value, group: Value, row: Value, sums: Buffer) -> None:
        """Add one group's products of a few strips from `row` on."""
        b, weight = self.b, self.spec.weight
        s = b.buffer("s").load(group)
        factor, start = b.broadcast(s * weight.unit, self.lanes), self.counting.start(group)
        shift = b.const(0.0, vec(self.lanes, f32))
        if weight.has_zero:
            shift = b.broadcast(s * b.sitofp(b.buffer("z").load(group)), self.lanes)
        for r, differing in enumerate(self._differing(block, group, row)):
            at = row + r * self.lanes
            product = self.counting.product(differing, start)
            total = b.fma(
                product, self.reader.scale(block, at) * factor, sums.vload(at, self.lanes)
            )
            if weight.has_zero:
                total = b.fma(self.reader.scale(block, at, 1), shift, total)
            sums.vstore(total, at)

    def _differing(self, block: Value, group: Value, row: Value) -> list[Value]:
        """i32 weighted counts of differing bits, for each strip from `row` on."""
        b, spec, counting = self.b, self.spec, self.counting
        form, base = counting.form, group * (spec.words * spec.bits)

        def step(word: Value, counts: Sequence[Value]) -> list[Value]:
            q = [b.buffer("q").load(base + word * spec.bits + j) for j in range(spec.bits)]
            x = [b.broadcast(one, self.lanes) for one in q]
            added: list[Value] = []
            for r in range(self.strips):
                w = [self.reader.word(block, word, i, row, r) for i in range(spec.weight.bits)]
                mine = counts[r * counting.weights : (r + 1) * counting.weights]
                added += counting.pairs(
                    mine, lambda i, j, w=w: form.count(b, form.split(b, w[i] ^ x[j]))
                )
            return added

        return counting.sums(self.strips, self.unroll, step)
