"""Bit planes of weights times one row of bipolar activations."""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, vec
from nybble.backends.cpu.kernels.matmul.bitserial import BitserialSpec
from nybble.backends.cpu.kernels.matmul.bitserial_dot import Counting
from nybble.backends.cpu.kernels.matmul.bitserial_weights import PlaneReader
from nybble.backends.cpu.kernels.matmul.epilogue import Epilogue
from nybble.backends.cpu.kernels.matmul.parts import for_each_tile
from nybble.backends.cpu.kernels.matmul.weights import SUBTILES, divisor
from nybble.backends.cpu.packing import LANES, TILE


@dataclass(frozen=True)
class BitGemvTiles:
    """Sizes that do not change the result.

    counts: vectors of counts that a loop keeps, at most, if one strip's fit. pairs: plane pairs
    that a round of the inner loop counts in all strips, at most. ahead: bytes between what is read
    and what is prefetched.
    """

    counts: int
    pairs: int = 64
    ahead: int = 4096


def lower_bit_gemv(spec: BitserialSpec, name: str, tiles: BitGemvTiles | None = None) -> FuncOp:
    """The kernel of a spec with one token."""
    b = KernelBuilder(name, spec.buffers())
    epilogue = Epilogue(b, spec)
    sizes = tiles or BitGemvTiles(counts=spec.isa.registers // 2)

    def body(parts: tuple[int, ...], tile: Value) -> None:
        sums = [_Tile(b, spec, part, sizes).sums(tile) for part in parts]
        for r in range(SUBTILES):
            row = tile * TILE + r * LANES
            epilogue.finish(parts[0], 0, row, tuple(one[r] for one in sums))

    for_each_tile(b, spec, body)
    return b.finish()


class _Tile:
    """One part's tiles times the one activation row."""

    def __init__(self, b: KernelBuilder, spec: BitserialSpec, part: int, tiles: BitGemvTiles):
        self.b = b
        self.spec = spec
        self.counting = Counting(b, spec)
        lanes = self.counting.lanes
        self.reader = PlaneReader(b, b.buffer(f"w{part}"), spec.layouts[part], lanes, tiles.ahead)
        self.strips = TILE // lanes
        self.at_once = divisor(self.strips, max(1, tiles.counts // self.counting.weights))
        pairs = spec.weight.bits * spec.bits * self.at_once
        self.unroll = max(1, tiles.pairs // pairs)

    def sums(self, tile: Value) -> list[Value]:
        """The four sub-tiles' products as f32 lanes."""
        b = self.b
        zeros = [b.const(0.0, vec(self.counting.lanes, f32))] * self.strips
        with b.for_(0, self.spec.groups, inits=zeros) as loop:
            block = self.reader.block(tile, loop.iv)
            loop.yield_(*self._group(block, loop.iv, loop.args))
        return self.counting.subtiles(loop.results)

    def _group(self, block: Value, group: Value, sums: Sequence[Value]) -> list[Value]:
        """Add one group."""
        b, weight = self.b, self.spec.weight
        s = b.buffer("s").load(group)
        factor = b.broadcast(s * weight.unit, self.counting.lanes)
        start = self.counting.start(group)
        done: list[Value] = []
        for first in range(0, self.strips, self.at_once):
            for r, differing in enumerate(self._differing(block, group, first), first):
                product = self.counting.product(differing, start)
                scale = self.reader.scale(block, r)
                done.append(b.fma(product, scale * factor, sums[r]))
        if not weight.has_zero:
            return done
        shift = b.broadcast(s * b.sitofp(b.buffer("z").load(group)), self.counting.lanes)
        return [b.fma(self.reader.scale(block, r, 1), shift, y) for r, y in enumerate(done)]

    def _differing(self, block: Value, group: Value, first: int) -> list[Value]:
        """i32 weighted counts of differing bits, for `at_once` strips from `first` on."""
        b, spec, counting = self.b, self.spec, self.counting
        form, base = counting.form, group * (spec.words * spec.bits)

        def step(word: Value, counts: Sequence[Value]) -> list[Value]:
            x = [
                b.broadcast(b.buffer("q").load(base + (word * spec.bits + j)), counting.lanes)
                for j in range(spec.bits)
            ]
            added: list[Value] = []
            for r in range(self.at_once):
                w = [self.reader.word(block, word, i, first + r) for i in range(spec.weight.bits)]
                mine = counts[r * counting.weights : (r + 1) * counting.weights]
                added += counting.pairs(
                    mine, lambda i, j, w=w: form.count(b, form.split(b, w[i] ^ x[j]))
                )
            return added

        return counting.sums(self.at_once, self.unroll, step)
