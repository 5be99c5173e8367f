"""Matrix times one vector of integer activations: integer dot products along packed tiles.

Per tile of 64 rows and group: the four sub-tiles' sums start at `-zero_point * z` and add the dot
products of the packed vectors; the group's scale, times the activation's, brings them to f32.
A group Z enters through z, the sum of the group's activations: `Z * s * z`.

Several tiles can go side by side. They share what is loaded of the activations, and the processor
then has several streams of memory to fetch ahead of, where it fetches each only so far.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, i32
from nybble.backends.cpu.kernels.matmul.adding import Corrected, gemv_scratch
from nybble.backends.cpu.kernels.matmul.codes_dot import (
    CodesDot,
    Run,
    in_place,
    in_place_dot,
    level_dot,
)
from nybble.backends.cpu.kernels.matmul.elements import FLOATS, WORDS
from nybble.backends.cpu.kernels.matmul.epilogue import Epilogue
from nybble.backends.cpu.kernels.matmul.intdot import BITS, Activation, IntDot
from nybble.backends.cpu.kernels.matmul.parts import for_each_group
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import Block, CodeReader, divisor
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, VECTOR, TileLayout

VECTORS = 8
"""Packed vectors per sub-tile in a round of the inner loop, by default."""
SPARE = 6
"""Registers, in vectors of 512 bits, that integer sums leave to operands and constants."""
Place = tuple[Block, Value]
"""A block of a tile, and the byte where codes start."""


@dataclass(frozen=True)
class GemvTiles:
    """Sizes that do not change the result.

    steps: of the layout, in a round of the inner loop: a divisor of those in an activation group.
    subtiles: how many of the four a loop keeps sums of. runs: of groups that share floats, in a
    round of the outer loop. ahead: bytes between what is read and what is prefetched; 0 for none.
    tiles: how many go side by side.
    """

    steps: int
    subtiles: int
    runs: int
    ahead: int
    tiles: int = 1


def gemv_steps(spec: MatmulSpec) -> int:
    """Steps of the layout in a group of activations."""
    layout = spec.layouts[0]
    assert isinstance(layout, TileLayout)
    return spec.activation_group // layout.step


def gemv_runs(spec: MatmulSpec) -> int:
    """Runs of groups in a row."""
    layout = spec.layouts[0]
    assert isinstance(layout, TileLayout)
    return layout.groups // layout.count


def gemv_tiles(spec: MatmulSpec) -> GemvTiles:
    """Eight packed vectors a round, and as many sub-tiles as registers hold sums of."""
    layout = spec.layouts[0]
    assert isinstance(layout, TileLayout)
    isa = spec.isa
    streams = min(isa.streams, layout.tiles)
    steps = divisor(gemv_steps(spec), VECTORS * SUBTILES * VECTOR // (layout.step_bytes * streams))
    if streams > 1:  # whole lines of each stream in order matter more than registers
        return GemvTiles(steps, SUBTILES, 1, isa.ahead, streams)
    room = isa.registers * isa.vector_bits // BITS - SPARE
    subtiles = divisor(SUBTILES, room // _form(spec, layout).accumulators)
    return GemvTiles(steps, subtiles, 1, isa.ahead)


def _form(spec: MatmulSpec, layout: TileLayout) -> IntDot:
    """How the codes of a layout are multiplied."""
    if in_place(spec, layout.widths):
        return in_place_dot(spec, layout.width)
    return level_dot(spec)


def lower_gemv(spec: MatmulSpec, name: str, tiles: GemvTiles | None = None) -> FuncOp:
    """The kernel of an integer spec with one token."""
    b = KernelBuilder(name, spec.buffers(gemv_scratch(spec)))
    tiles = tiles or gemv_tiles(spec)
    epilogue = Epilogue(b, spec)
    corrected = Corrected(b, spec) if spec.added else None

    def body(parts: tuple[int, ...], every: list[Value]) -> None:
        found = [_Tiles(b, spec, part, tiles).sums(every) for part in parts]
        for index, tile in enumerate(every):
            sums = [one[SUBTILES * index : SUBTILES * (index + 1)] for one in found]
            if corrected is not None:
                sums = corrected(parts, tile, sums)
            for r in range(SUBTILES):
                row = tile * (SUBTILES * LANES) + r * LANES
                epilogue.finish(parts[0], 0, row, tuple(one[r] for one in sums))

    for_each_group(b, spec, tiles.tiles, body)
    return b.finish()


class _Tiles:
    """Tiles of one part, side by side, times the one activation row.

    Lists of values have the sub-tiles of the first tile, then those of the next.
    """

    def __init__(self, b: KernelBuilder, spec: MatmulSpec, part: int, tiles: GemvTiles):
        layout = spec.layouts[part]
        assert isinstance(layout, TileLayout)
        self.b = b
        self.layout = layout
        self.integers = spec.integers
        self.group = spec.activation_group
        self.tiles = tiles
        self.reader = CodeReader(b, b.buffer(f"w{part}"), layout, spec, tiles.ahead)
        self.in_place = in_place(spec, layout.widths)
        self.dot = CodesDot(b, spec, _form(spec, layout))
        q = b.buffer("q")
        self.q = [q.view(i32, digit * spec.plane, spec.cols // 4) for digit in range(spec.digits)]

    def sums(self, tiles: Sequence[Value]) -> list[Value]:
        """The products of the sub-tiles as f32 lanes."""
        b, layout = self.b, self.layout
        zeros = [b.const(0.0, FLOATS)] * (SUBTILES * len(tiles))
        with b.for_(0, layout.groups, layout.count * self.tiles.runs, inits=zeros) as loop:
            sums: Sequence[Value] = loop.args
            for run in range(self.tiles.runs):
                first = loop.iv + run * layout.count if run else loop.iv
                if layout.tree is None:
                    sums = self._group(self._blocks(tiles, first), first, (sums, sums))[0]
                else:
                    sums = self._run(tiles, first, sums)
            loop.yield_(*sums)
        return loop.results

    def _blocks(self, tiles: Sequence[Value], group: Value) -> list[Block]:
        return [self.reader.block(tile, group) for tile in tiles]

    def _run(self, tiles: Sequence[Value], first: Value, sums: Sequence[Value]) -> list[Value]:
        """Add the groups that share floats: `S = shared * small`, and Z alike with its own."""
        b, reader, layout = self.b, self.reader, self.layout
        own = layout.has_zero and not layout.integer_zero
        zeros = [b.const(0.0, FLOATS)] * (len(sums) * (2 if own else 1))
        with b.for_(0, layout.count, inits=zeros) as loop:
            pair = (loop.args[: len(sums)], loop.args[-len(sums) :])
            blocks = self._blocks(tiles, first + loop.iv)
            scaled, shifted = self._group(blocks, first + loop.iv, pair)
            loop.yield_(*scaled, *(shifted if own else ()))
        blocks = self._blocks(tiles, first)
        for kind in range(2 if own else 1):
            parts = loop.results[kind * len(sums) : (kind + 1) * len(sums)]
            shared = [reader.shared(block, r, kind) for block in blocks for r in range(SUBTILES)]
            sums = [b.fma(f, one, y) for f, one, y in zip(shared, parts, sums, strict=True)]
        return [*sums]

    def _group(
        self,
        blocks: Sequence[Block],
        group: Value,
        sums: tuple[Sequence[Value], Sequence[Value]],
    ) -> tuple[list[Value], list[Value]]:
        """Add a weight group to what is scaled and what is shifted; these two may be one."""
        b = self.b
        count = self.layout.group // self.group
        if count == 1:
            dots = self._dots([(block, block.at) for block in blocks], group)
            scales = self._of_each(blocks, self.reader.small_scale)
            scale = b.buffer("s").load(group)
            splat = b.broadcast(self._with_unit(scale), LANES)
            scaled = [b.fma(d, f * splat, y) for d, f, y in zip(dots, scales, sums[0], strict=True)]
            weighted = scale * self._sum(group)
        else:
            *within, weighted = self._parts(blocks, group, count)
            scales = self._of_each(blocks, self.reader.small_scale)
            scaled = [b.fma(d, f, y) for d, f, y in zip(within, scales, sums[0], strict=True)]
        if not self.layout.has_zero:
            return scaled, scaled
        splat = b.broadcast(weighted, LANES)
        alone = self.layout.tree is not None and not self.layout.integer_zero
        shifted = [
            b.fma(zero, splat, y)
            for zero, y in zip(
                self._zeros(blocks, scales), sums[1] if alone else scaled, strict=True
            )
        ]
        return (scaled, shifted) if alone else (shifted, shifted)

    @staticmethod
    def _of_each(blocks: Sequence[Block], value: Callable[[Block, int], Value]) -> list[Value]:
        return [value(block, r) for block in blocks for r in range(SUBTILES)]

    def _zeros(self, blocks: Sequence[Block], scales: Sequence[Value]) -> list[Value]:
        zeros = self._of_each(blocks, self.reader.small_zero)
        if not self.layout.integer_zero:
            return zeros
        return [-(scale * zero) for scale, zero in zip(scales, zeros, strict=True)]

    def _parts(self, blocks: Sequence[Block], group: Value, count: int) -> list[Value]:
        """The products of a group's activation groups with their scales, and sum of these."""
        b = self.b
        zeros = [b.const(0.0, FLOATS)] * (SUBTILES * len(blocks))
        with b.for_(0, count, inits=[*zeros, b.const(0.0, f32)]) as loop:
            part = group * count + loop.iv
            span = self.layout.code_bytes // count
            places = [(block, block.at + loop.iv * span) for block in blocks]
            dots = self._dots(places, part)
            scale = b.buffer("s").load(part)
            splat = b.broadcast(self._with_unit(scale), LANES)
            within = [b.fma(d, splat, y) for d, y in zip(dots, loop.args[:-1], strict=True)]
            loop.yield_(*within, b.fma(scale, self._sum(part), loop.args[-1]))
        return loop.results

    def _with_unit(self, scale: Value) -> Value:
        return scale if self.integers.unit == 1.0 else scale * self.integers.unit

    def _sum(self, group: Value) -> Value:
        return self.b.sitofp(self.b.buffer("z").load(group))

    def _dots(self, places: Sequence[Place], group: Value) -> list[Value]:
        """Integer products of one activation group, whose codes start at places, as f32 lanes."""
        b = self.b
        start = b.const(0, WORDS)
        if self.dot.factor:
            start = b.broadcast(b.buffer("z").load(group) * self.dot.factor, LANES)
        totals: dict[tuple[int, int], Value] = {}
        for first in range(0, SUBTILES, self.tiles.subtiles):
            every = [
                (tile, r)
                for tile in range(len(places))
                for r in range(first, first + self.tiles.subtiles)
            ]
            found = self._subtiles(places, group, every, start)
            totals |= zip(every, found, strict=True)
        return [b.sitofp(totals[one]) for one in sorted(totals)]

    def _subtiles(
        self, places: Sequence[Place], group: Value, every: Sequence[tuple[int, int]], start: Value
    ) -> list[Value]:
        """Integer products of some sub-tiles. every: the tile and sub-tile of each."""
        b, layout = self.b, self.layout
        sums = self.dot.start(start) * len(every)
        steps = self.group // layout.step
        unroll = self.tiles.steps
        word = group * (self.group // 4)
        if unroll == steps:
            sums = self._steps(places, word, every, sums, steps)
        else:
            with b.for_(0, steps, unroll, inits=sums) as loop:
                moved = loop.iv * layout.step_bytes
                here = word + loop.iv * (layout.step // 4)
                there = [(block, codes + moved) for block, codes in places]
                loop.yield_(*self._steps(there, here, every, loop.args, unroll))
            sums = loop.results
        return [self.dot.total(one, start) for one in self._by_subtile(sums)]

    def _by_subtile(self, sums: Sequence[Value]) -> list[Sequence[Value]]:
        count = self.dot.carried
        return [sums[i : i + count] for i in range(0, len(sums), count)]

    def _steps(
        self,
        places: Sequence[Place],
        word: Value,
        every: Sequence[tuple[int, int]],
        sums: Sequence[Value],
        count: int,
    ) -> list[Value]:
        """Add `count` steps of columns, whose activations start at a word."""
        layout, per = self.layout, self.layout.step // 4
        runs = [self.dot.open(part) for part in self._by_subtile(sums)]
        for step in range(count):
            here = word + step * per
            shared = [*self._activations(here)] if len(every) > 1 else None
            for run, (tile, subtile) in zip(runs, every, strict=True):
                block, codes = places[tile]
                at = codes + step * layout.step_bytes
                self._step(run, (block, at, subtile), shared or self._activations(here))
        return [one for run in runs for one in self.dot.close(run)]

    def _activations(self, word: Value) -> Iterator[Activation]:
        """Those of a step, each made where it is asked for: waiting takes registers."""
        for i in range(self.layout.step // 4):
            yield self.dot.activation([q.load(word + i) for q in self.q])

    def _step(self, run: Run, place: tuple[Block, Value, int], xs: Iterable[Activation]) -> None:
        """Add a step of columns. place: the block, the byte of the step, and the sub-tile."""
        block, at, subtile = place
        if self.in_place:
            self.dot.add(run, self.reader.word(at, 0, 0, subtile), xs)
            return
        for level, x in zip(self.reader.levels(block, at, subtile), xs, strict=True):
            self.dot.add(run, level, [x])
