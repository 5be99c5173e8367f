"""Matrix times token rows given as lookup tables: one look-up per row, plane and four columns.

For each tile of 64 rows and each token, a group's look-ups give the sum of code * integer; with
`T(c) = step * c - zero_point` and a symmetric table it is half of `step * sum + k * z`, where z is
the sum of the group's integers and `k = step * (2^bits - 1) - 2 * zero_point`. The group's scale,
times the activation's, brings it to f32, in the same order of operations as `gemv`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32
from nybble.backends.cpu.kernels.matmul.elements import FLOATS
from nybble.backends.cpu.kernels.matmul.epilogue import Epilogue
from nybble.backends.cpu.kernels.matmul.lookup import Sizes, lookup, registers_together
from nybble.backends.cpu.kernels.matmul.lut_spec import LutSpec
from nybble.backends.cpu.kernels.matmul.parts import for_each_tile
from nybble.backends.cpu.kernels.matmul.weight_reader import floats
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TILE


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
    epilogue = Epilogue(b, spec)

    def one_token(parts: tuple[int, ...], tile: Value, token: Value | int) -> None:
        sums = [LutTile(b, spec, part, tiles).sums(tile, b.value(token)) for part in parts]
        for r in range(SUBTILES):
            epilogue.finish(parts[0], token, tile * TILE + r * LANES, tuple(s[r] for s in sums))

    def body(parts: tuple[int, ...], tile: Value) -> None:
        if spec.tokens == 1:
            one_token(parts, tile, 0)
            return
        with b.for_(0, b.n) as token:
            one_token(parts, tile, token.iv)

    for_each_tile(b, spec, body)
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


class LutTile:
    """One part's tiles times one token's tables."""

    def __init__(self, b: KernelBuilder, spec: LutSpec, part: int, tiles: LutTiles):
        self.b = b
        self.spec = spec
        self.layout = spec.layouts[part]
        self.line = Line.of(spec)
        self.groups = tiles.groups
        sizes = Sizes(tiles.registers, tiles.chunks, tiles.ahead)
        self.lookup = lookup(b, spec, part, sizes)

    def sums(self, tile: Value, token: Value) -> list[Value]:
        """The four sub-tiles' products with a token as f32 lanes."""
        b, layout = self.b, self.layout
        zeros = [b.const(0.0, FLOATS)] * SUBTILES
        with b.for_(0, layout.groups, self.groups, inits=zeros) as loop:
            sums: Sequence[Value] = loop.args
            for i in range(self.groups):
                group = loop.iv + i if i else loop.iv
                block = tile * layout.tile_bytes + group * layout.block_bytes
                sums = self._group(block, token, group, sums)
            loop.yield_(*sums)
        return loop.results

    def _group(
        self, block: Value, token: Value, group: Value, sums: Sequence[Value]
    ) -> list[Value]:
        """Add a weight group: one group of the tables, or several of them."""
        b, spec = self.b, self.spec
        count = self.layout.group // spec.activation_group
        first = token * spec.tables.groups + group * count
        if count == 1:
            scale = b.buffer("s").load(first)
            factors = [self._scale(block, r) * b.broadcast(scale, LANES) for r in range(4)]
            dots = self._dots(block, first)
            sums = [b.fma(d, f, y) for d, f, y in zip(dots, factors, sums, strict=True)]
            return self._with_zero(block, scale * self._sum(first), sums)
        zeros = [b.const(0.0, FLOATS)] * SUBTILES
        with b.for_(0, count, inits=[*zeros, b.const(0.0, f32)]) as loop:
            at = first + loop.iv
            scale = b.buffer("s").load(at)
            splat = b.broadcast(scale, LANES)
            dots = self._dots(block + loop.iv * (self.layout.code_bytes // count), at)
            within = [b.fma(d, splat, y) for d, y in zip(dots, loop.args[:-1], strict=True)]
            loop.yield_(*within, b.fma(scale, self._sum(at), loop.args[-1]))
        *within, weighted = loop.results
        factors = [self._scale(block, r) for r in range(SUBTILES)]
        sums = [b.fma(d, f, y) for d, f, y in zip(within, factors, sums, strict=True)]
        return self._with_zero(block, weighted, sums)

    def _with_zero(self, block: Value, weighted: Value, sums: Sequence[Value]) -> list[Value]:
        """Add Z times the activations' sum, where the format has Z."""
        b = self.b
        if not self.layout.has_zero:
            return [*sums]
        splat = b.broadcast(weighted, LANES)
        return [b.fma(self._scale(block, r, 1), splat, y) for r, y in enumerate(sums)]

    def _scale(self, block: Value, subtile: int, kind: int = 0) -> Value:
        """Scales (kind 0) or zeros (kind 1) of a sub-tile as f32 lanes."""
        layout = self.layout
        span = layout.float_bytes // SUBTILES
        start = layout.zero if kind else layout.code_bytes
        at = block + (start + subtile * span)
        return floats(self.b, self.lookup.w.vload(at, span), layout.scale)

    def _sum(self, group: Value) -> Value:
        return self.b.sitofp(self.b.buffer("z").load(group))

    def _dots(self, codes: Value, group: Value) -> list[Value]:
        """Sums of T(code) * integer of a group of the tables, as f32 lanes."""
        b, line, tables = self.b, self.line, self.spec.tables
        place = group * (tables.row_bytes // tables.groups)
        found = self.lookup.sums(codes, place)
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
        shift = b.broadcast(self._sum(group) * (line.shift / line.divisor), LANES)
        return [b.fma(b.sitofp(one), unit, shift) for one in found]
