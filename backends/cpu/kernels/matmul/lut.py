"""Matrix times token rows given as lookup tables: one look-up per row, plane and four columns.

For each tile of 64 rows and each token, a group's look-ups give the sum of code * integer; with
`T(c) = step * c - zero_point` and a symmetric table it is half of `step * sum + k * z`, where z is
the sum of the group's integers and `k = step * (2^bits - 1) - 2 * zero_point`. The group's scale,
times the activation's, brings it to f32, in the same order of operations as `gemv`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value
from nybble.backends.cpu.kernels.matmul.groups import IntegerGroups, Place
from nybble.backends.cpu.kernels.matmul.lookup import Sizes, lookup, registers_together
from nybble.backends.cpu.kernels.matmul.lut_spec import LutSpec
from nybble.backends.cpu.kernels.matmul.side_by_side import multiply
from nybble.backends.cpu.kernels.matmul.weights import CodeReader
from nybble.backends.cpu.tile_layout import LANES


@dataclass(frozen=True)
class LutTiles:
    """Sizes that do not change the result.

    registers: of rows that a loop keeps sums of (see `ShuffleLookup`). chunks: in a round of the
    loop over a group's tables. groups: in a round of the outer loop, where tables have the groups
    of the weight. ahead: bytes from what is read to what is prefetched, 0 for none.
    """

    registers: int
    chunks: int = 1
    groups: int = 1
    ahead: int = 4096


def lut_tiles(spec: LutSpec) -> LutTiles:
    """As many registers as their sums fit in half of all."""
    return LutTiles(registers_together(spec))


def lower_lut(spec: LutSpec, name: str, tiles: LutTiles | None = None) -> FuncOp:
    """The kernel of a spec."""
    tiles = tiles or lut_tiles(spec)
    b = KernelBuilder(name, spec.buffers())

    def sums(part: int, every: Sequence[Value], token: Value) -> list[Value]:
        return _Tiles(b, spec, part, tiles).sums(every, token)

    multiply(b, spec, 1, sums)
    return b.finish()


@dataclass(frozen=True)
class Line:
    """The dot product of a group out of looked-up sums: `(sums * steep + z * shift) / divisor`."""

    steep: int
    shift: int
    divisor: int

    @staticmethod
    def of(spec: LutSpec) -> "Line":
        """See the module's text; without a divisor where all of it is even."""
        step, zero_point = spec.weight.step, spec.weight.zero_point
        if not spec.symmetric:
            return Line(step, -zero_point, 1)
        shift = step * (2**spec.weight.bits - 1) - 2 * zero_point
        if step % 2 == shift % 2 == 0:
            return Line(step // 2, shift // 2, 1)
        return Line(step, shift, 2)


class _Tiles(IntegerGroups):
    """Look-ups along packed tiles."""

    def __init__(self, b: KernelBuilder, spec: LutSpec, part: int, tiles: LutTiles):
        layout, w = spec.layouts[part], b.buffer(f"w{part}")
        inside = layout.group // spec.activation_group
        super().__init__(CodeReader(b, w, layout, spec, tiles.ahead), inside, tiles.groups)
        self.spec = spec
        self.line = Line.of(spec)
        self.lookup = lookup(b, spec, part, Sizes(tiles.registers, tiles.chunks, tiles.ahead))

    def dots(self, places: Sequence[Place], group: Value) -> list[Value]:
        """See IntegerGroups: sums of T(code) * integer of a group of the tables."""
        b, line, tables = self.b, self.line, self.spec.tables
        place = group * (tables.row_bytes // tables.groups)
        found = [one for _, codes in places for one in self.lookup.sums(codes, place)]
        if not tables.exact:
            return self._rounded(found, group)
        if line.steep != 1:
            found = [one * line.steep for one in found]
        if line.shift:
            shift = b.broadcast(b.buffer("z").load(group) * line.shift, LANES)
            found = [one + shift for one in found]
        if line.divisor == 2:
            found = [one >> 1 for one in found]
        return [b.sitofp(one) for one in found]

    def _rounded(self, found: Sequence[Value], group: Value) -> list[Value]:
        b, line = self.b, self.line
        unit = b.broadcast(b.buffer("u").load(group) * (line.steep / line.divisor), LANES)
        shift = b.broadcast(self.sum_of(group) * (line.shift / line.divisor), LANES)
        return [b.fma(b.sitofp(one), unit, shift) for one in found]
