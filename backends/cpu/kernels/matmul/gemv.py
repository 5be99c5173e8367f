"""Matrix times one vector of integer activations: integer dot products along packed tiles.

Per tile of 64 rows and group: the four sub-tiles' sums start at `-zero_point * z` and add the dot
products of the packed vectors; the group's scale, times the activation's, brings them to f32.
A group Z enters through z, the sum of the group's activations: `Z * s * z`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, i32
from nybble.backends.cpu.kernels.matmul.codes_dot import LEVEL_BITS, CodesDot
from nybble.backends.cpu.kernels.matmul.elements import FLOATS, WORDS
from nybble.backends.cpu.kernels.matmul.epilogue import Epilogue
from nybble.backends.cpu.kernels.matmul.parts import for_each_tile
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import CodeReader, divisor
from nybble.backends.cpu.packing import LANES, SUBTILES, VECTOR, TileLayout


@dataclass(frozen=True)
class GemvTiles:
    """Sizes that do not change the result.

    unroll: packed vectors per sub-tile in a round of the inner loop, at most, but whole steps.
    ahead: bytes between what is read and what is prefetched; 0 for no prefetch.
    accumulators: integer sums that a loop keeps at once, at most, if a sub-tile's fit.
    """

    unroll: int = 8
    ahead: int = 8192
    accumulators: int = 16


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
        self.b = b
        self.layout = layout
        self.integers = spec.integers
        self.group = spec.activation_group
        self.tiles = tiles
        self.reader = CodeReader(b, b.buffer(f"w{part}"), layout, spec, tiles.ahead)
        self.dot = CodesDot(b, spec, (LEVEL_BITS,) if self.integers.levels else layout.widths)
        self.subtiles = divisor(SUBTILES, tiles.accumulators // self.dot.accumulators)
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
            dots = self._dots(block, block, group)
            splat = b.broadcast(self._with_unit(scale), LANES)
            factors = [self.reader.scale(block, r) * splat for r in range(SUBTILES)]
            sums = [b.fma(d, f, y) for d, f, y in zip(dots, factors, sums, strict=True)]
            return self._with_zero(block, scale, group, sums)
        zeros = [b.const(0.0, FLOATS)] * SUBTILES
        with b.for_(0, count, inits=[*zeros, b.const(0.0, f32)]) as loop:
            part = group * count + loop.iv
            scale = b.buffer("s").load(part)
            span = self.layout.code_bytes // count
            dots = self._dots(block, block + loop.iv * span, part)
            splat = b.broadcast(self._with_unit(scale), LANES)
            within = [b.fma(d, splat, y) for d, y in zip(dots, loop.args[:-1], strict=True)]
            loop.yield_(*within, b.fma(scale, self._sum(part), loop.args[-1]))
        factors = [self.reader.scale(block, r) for r in range(SUBTILES)]
        inner = loop.results
        sums = [b.fma(d, f, y) for d, f, y in zip(inner[:-1], factors, sums, strict=True)]
        return self._shifted(block, inner[-1], sums)

    def _with_unit(self, scale: Value) -> Value:
        return scale if self.integers.unit == 1.0 else scale * self.integers.unit

    def _with_zero(
        self, block: Value, scale: Value, group: Value, sums: Sequence[Value]
    ) -> list[Value]:
        return self._shifted(block, scale * self._sum(group), sums)

    def _shifted(self, block: Value, weighted: Value, sums: Sequence[Value]) -> list[Value]:
        """Add Z times the activations' sum, where the format has Z."""
        b = self.b
        if not self.layout.has_zero:
            return [*sums]
        splat = b.broadcast(weighted, LANES)
        return [b.fma(self.reader.scale(block, r, 1), splat, y) for r, y in enumerate(sums)]

    def _sum(self, group: Value) -> Value:
        return self.b.sitofp(self.b.buffer("z").load(group))

    def _dots(self, block: Value, codes: Value, group: Value) -> list[Value]:
        """Integer products of one activation group, whose codes start at a byte, as f32 lanes."""
        b = self.b
        start = b.const(0, WORDS)
        if self.integers.zero_point:
            start = b.broadcast(b.buffer("z").load(group) * -self.integers.zero_point, LANES)
        totals: list[Value] = []
        for first in range(0, SUBTILES, self.subtiles):
            subtiles = range(first, first + self.subtiles)
            totals += self._subtiles((block, codes), group, subtiles, start)
        return [b.sitofp(total) for total in totals]

    def _subtiles(
        self, places: tuple[Value, Value], group: Value, subtiles: range, start: Value
    ) -> list[Value]:
        """Integer products of some sub-tiles. places: bytes of the block and of its codes."""
        b, layout = self.b, self.layout
        block, codes = places
        sums = self.dot.start(start) * len(subtiles)
        steps = self.group // layout.step
        unroll = divisor(steps, self.tiles.unroll * SUBTILES * VECTOR // layout.step_bytes)
        word = group * (self.group // 4)
        if unroll == steps:
            sums = self._steps((block, codes), word, subtiles, sums, steps)
        else:
            with b.for_(0, steps, unroll, inits=sums) as loop:
                at = codes + loop.iv * layout.step_bytes
                here = word + loop.iv * (layout.step // 4)
                loop.yield_(*self._steps((block, at), here, subtiles, loop.args, unroll))
            sums = loop.results
        return [self.dot.total(one, start) for one in self._by_subtile(sums)]

    def _by_subtile(self, sums: Sequence[Value]) -> list[Sequence[Value]]:
        count = self.dot.accumulators
        return [sums[i : i + count] for i in range(0, len(sums), count)]

    def _steps(
        self,
        places: tuple[Value, Value],
        word: Value,
        subtiles: range,
        sums: Sequence[Value],
        count: int,
    ) -> list[Value]:
        """Add `count` steps of columns, whose activations start at a word."""
        layout, per = self.layout, self.layout.step // 4
        block, codes = places
        parts = self._by_subtile(sums)
        for step in range(count):
            words = [[q.load(word + (step * per + i)) for q in self.q] for i in range(per)]
            xs = self.dot.activations(words)
            at = codes + step * layout.step_bytes
            for i, r in enumerate(subtiles):
                if self.integers.levels:
                    for level, x in zip(self.reader.levels(block, at, r), xs[0], strict=True):
                        parts[i] = self.dot.add(parts[i], level, [x])
                else:
                    parts[i] = self.dot.add_step(parts[i], self.reader, (at, r), xs)
        return [one for part in parts for one in part]
