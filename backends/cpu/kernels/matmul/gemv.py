"""Matrix times one vector of integer activations: integer dot products along packed tiles.

Per tile of 64 rows and group: the four sub-tiles' sums start at `-zero_point * z` and add one
dot-product step per packed vector; the group's scale, times the activation's, brings them to f32.
A group Z enters through z, the sum of the group's activations: `Z * s * z`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, i32
from nybble.backends.cpu.kernels.matmul.epilogue import FLOATS, Epilogue
from nybble.backends.cpu.kernels.matmul.intdot import BITS, WORDS, Activation, IntDot, int_dot
from nybble.backends.cpu.kernels.matmul.parts import for_each_tile
from nybble.backends.cpu.kernels.matmul.spec import Codes, MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import SUBTILES, CodeReader, divisor
from nybble.backends.cpu.packing import LANES, TileLayout


@dataclass(frozen=True)
class GemvTiles:
    """Sizes that do not change the result.

    unroll: packed vectors per sub-tile in a round of the inner loop, at most.
    ahead: bytes between what is read and what is prefetched; 0 for no prefetch.
    spare: registers, in vectors of 512 bits, that integer sums leave to operands and constants.
    """

    unroll: int = 8
    ahead: int = 8192
    spare: int = 6

    def subtiles(self, isa: Isa, vectors: int) -> int:
        """How many sub-tiles a loop keeps, of `vectors` vectors of 512 bits each."""
        room = isa.registers * isa.vector_bits // BITS - self.spare
        return divisor(SUBTILES, room // vectors)


def lower_gemv(spec: MatmulSpec, name: str, tiles: GemvTiles = GemvTiles()) -> FuncOp:
    """The kernel of an integer spec with one token."""
    b = KernelBuilder(name, spec.buffers())
    epilogue = Epilogue(b, spec)

    def body(parts: tuple[int, ...], tile: Value) -> None:
        sums = [_Tile(b, spec, part, tiles).sums(tile) for part in parts]
        for r in range(SUBTILES):
            row = tile * (SUBTILES * LANES) + r * LANES
            epilogue.finish(parts[0], 0, row, tuple(one[r] for one in sums))

    for_each_tile(b, spec, body)
    return b.finish()


class _Tile:
    """One part's tiles times the one activation row."""

    def __init__(self, b: KernelBuilder, spec: MatmulSpec, part: int, tiles: GemvTiles):
        layout = spec.layouts[part]
        assert isinstance(layout, TileLayout)
        assert isinstance(spec.weight, Codes)
        self.b = b
        self.layout = layout
        self.weight = spec.weight
        self.group = spec.activation_group
        self.tiles = tiles
        self.dot: IntDot = int_dot(spec.isa, layout.width, spec.digits, layout.bits)
        self.subtiles = tiles.subtiles(spec.isa, self.dot.accumulators)
        weights = b.buffer(f"w{part}")
        self.reader = CodeReader(b, weights, layout, spec.weight.zero_point, tiles.ahead)
        q = b.buffer("q")
        self.q = [q.view(i32, digit * spec.plane, spec.cols // 4) for digit in range(spec.digits)]

    def sums(self, tile: Value) -> list[Value]:
        """The four sub-tiles' products as f32 lanes."""
        b, layout = self.b, self.layout
        zeros = [b.const(0.0, FLOATS)] * SUBTILES
        with b.for_(0, layout.groups, inits=zeros) as loop:
            block = self.reader.block(tile, loop.iv)
            loop.yield_(*self._group(block, loop.iv, loop.args))
        return loop.results

    def _group(self, block: Value, group: Value, sums: Sequence[Value]) -> list[Value]:
        """Add a weight group: one activation group, or several of them."""
        b = self.b
        count = self.layout.group // self.group
        if count == 1:
            scale = b.buffer("s").load(group)
            dots = self._dots(block, group)
            factors = [self.reader.scale(block, r) * b.broadcast(scale, LANES) for r in range(4)]
            sums = [b.fma(d, f, y) for d, f, y in zip(dots, factors, sums, strict=True)]
            return self._with_zero(block, scale * self._sum(group), sums)
        zeros = [b.const(0.0, FLOATS)] * SUBTILES
        with b.for_(0, count, inits=[*zeros, b.const(0.0, f32)]) as loop:
            part = group * count + loop.iv
            scale = b.buffer("s").load(part)
            span = self.layout.code_bytes // count
            dots = self._dots(block + loop.iv * span, part)
            splat = b.broadcast(scale, LANES)
            within = [b.fma(d, splat, y) for d, y in zip(dots, loop.args[:-1], strict=True)]
            loop.yield_(*within, b.fma(scale, self._sum(part), loop.args[-1]))
        factors = [self.reader.scale(block, r) for r in range(SUBTILES)]
        inner = loop.results
        sums = [b.fma(d, f, y) for d, f, y in zip(inner[:-1], factors, sums, strict=True)]
        return self._with_zero(block, inner[-1], sums)

    def _with_zero(self, block: Value, weighted: Value, sums: Sequence[Value]) -> list[Value]:
        """Add Z times the activations' sum, where the format has Z."""
        b = self.b
        if not self.layout.has_zero:
            return [*sums]
        splat = b.broadcast(weighted, LANES)
        return [b.fma(self.reader.scale(block, r, 1), splat, y) for r, y in enumerate(sums)]

    def _sum(self, group: Value) -> Value:
        return self.b.sitofp(self.b.buffer("z").load(group))

    def _dots(self, block: Value, group: Value) -> list[Value]:
        """Integer dot products of one activation group, as f32 lanes."""
        b = self.b
        start = b.const(0, WORDS)
        if factor := self.dot.offset - self.weight.zero_point:
            start = b.broadcast(b.buffer("z").load(group) * factor, LANES)
        totals: list[Value] = []
        for first in range(0, SUBTILES, self.subtiles):
            totals += self._subtiles(block, group, first, start)
        return [b.sitofp(total) for total in totals]

    def _subtiles(self, block: Value, group: Value, first: int, start: Value) -> list[Value]:
        """Integer dot products of `self.subtiles` sub-tiles from `first` on."""
        b, dot = self.b, self.dot
        sums = dot.start(b, start)
        carried = len(sums)
        sums = sums * self.subtiles
        vectors = self.group // (4 * dot.planes)
        word = group * (self.group // 4)
        unroll = divisor(vectors, min(self.tiles.unroll, dot.run))
        block = block + first * 64
        if unroll == vectors:
            sums = self._vectors(block, word, sums, vectors)
        else:
            with b.for_(0, vectors, unroll, inits=sums) as loop:
                at = block + loop.iv * (SUBTILES * 64)
                here = word + loop.iv * dot.planes
                loop.yield_(*self._vectors(at, here, loop.args, unroll))
            sums = loop.results
        return [dot.total(b, sums[i : i + carried]) for i in range(0, len(sums), carried)]

    def _vectors(self, block: Value, word: Value, sums: Sequence[Value], count: int) -> list[Value]:
        """The sums with a run of packed vectors."""
        b, dot = self.b, self.dot
        carried = len(sums) // self.subtiles
        parts = [sums[i : i + carried] for i in range(0, len(sums), carried)]
        runs = [dot.open(part) for part in parts]
        for v in range(count):
            xs = [self._activation(word + (v * dot.planes + p)) for p in range(dot.planes)]
            for r, run in enumerate(runs):
                runs[r] = dot.step(b, run, self.reader.word(block, v, r), xs)
        closed = [dot.close(b, part, run) for part, run in zip(parts, runs, strict=True)]
        return [one for part in closed for one in part]

    def _activation(self, place: Value) -> Activation:
        b = self.b
        return self.dot.prepare(b, [b.broadcast(q.load(place), LANES) for q in self.q])
