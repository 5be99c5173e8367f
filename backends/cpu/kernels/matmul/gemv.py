"""Matrix times one vector of integer activations: integer dot products along packed tiles.

Per tile of 64 rows and group: the four sub-tiles' sums start at `-zero_point * z` and add the dot
products of the packed vectors; the group's scale, times the activation's, brings them to f32.
A group Z enters through z, the sum of the group's activations: `Z * s * z`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, i32
from nybble.backends.cpu.kernels.loops import divisor
from nybble.backends.cpu.kernels.matmul.adding import gemv_scratch
from nybble.backends.cpu.kernels.matmul.codes_dot import (
    CodesDot,
    Run,
    in_place,
    in_place_dot,
    level_dot,
)
from nybble.backends.cpu.kernels.matmul.elements import WORDS
from nybble.backends.cpu.kernels.matmul.groups import IntegerGroups, Place
from nybble.backends.cpu.kernels.matmul.intdot import BITS, Activation, IntDot
from nybble.backends.cpu.kernels.matmul.side_by_side import multiply, streams
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import Block, CodeReader
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, VECTOR, TileLayout

VECTORS = 8
"""Packed vectors per sub-tile in a round of the inner loop, by default."""
SPARE = 6
"""Registers, in vectors of 512 bits, that integer sums leave to operands and constants."""


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
    isa, tiles = spec.isa, streams(spec)
    steps = divisor(gemv_steps(spec), VECTORS * SUBTILES * VECTOR // (layout.step_bytes * tiles))
    if tiles > 1:  # whole lines of each stream in order matter more than registers
        return GemvTiles(steps, SUBTILES, 1, isa.ahead, tiles)
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

    def sums(part: int, every: Sequence[Value], token: Value) -> list[Value]:
        return _Tiles(b, spec, part, tiles).sums(every, token)

    multiply(b, spec, tiles.tiles, sums)
    return b.finish()


class _Tiles(IntegerGroups):
    """Integer dot products along packed tiles."""

    def __init__(self, b: KernelBuilder, spec: MatmulSpec, part: int, tiles: GemvTiles):
        layout = spec.layouts[part]
        assert isinstance(layout, TileLayout)
        reader = CodeReader(b, b.buffer(f"w{part}"), layout, spec, tiles.ahead)
        inside = layout.group // spec.activation_group
        super().__init__(reader, inside, tiles.runs, spec.integers.unit)
        self.group = spec.activation_group
        self.tiles = tiles
        self.in_place = in_place(spec, layout.widths)
        self.dot = CodesDot(b, spec, _form(spec, layout))
        q = b.buffer("q")
        self.q = [q.view(i32, digit * spec.plane, spec.cols // 4) for digit in range(spec.digits)]

    def dots(self, places: Sequence[Place], group: Value) -> list[Value]:
        """See IntegerGroups."""
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
