"""Sums of tiles of rows, group by group: the loops that every product of one vector shares.

What multiplies the codes of a group fills in `Groups.add`, or, where the activation is integers
under scales, `IntegerGroups.dots`. Lists of values have the sub-tiles of the first tile, then those
of the next.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32
from nybble.backends.cpu.kernels.matmul.elements import FLOATS
from nybble.backends.cpu.kernels.matmul.weights import Block, CodeReader
from nybble.backends.cpu.tile_layout import LANES, SUBTILES

Place = tuple[Block, Value]
"""A block of a tile, and the byte where codes start."""
Lanes = Sequence[Value]


class Groups(ABC):
    """Tiles of one part, side by side, times a token.

    inside: what activations have for each group of the weight: groups, or columns. together: groups
    of the weight, or runs of `span` groups, that are written out in a round.
    """

    span = 1

    def __init__(self, reader: CodeReader, inside: int, together: int):
        self.b: KernelBuilder = reader.b
        self.reader = reader
        self.layout = reader.layout
        self.inside = inside
        self.together = together

    def sums(self, tiles: Lanes, token: Value) -> list[Value]:
        """The products of the sub-tiles as f32 lanes."""
        b, layout = self.b, self.layout
        row = token * (layout.groups * self.inside)
        zeros = [b.const(0.0, FLOATS)] * (SUBTILES * len(tiles))
        with b.for_(0, layout.groups, self.span * self.together, inits=zeros) as loop:
            sums: Lanes = loop.args
            for i in range(self.together):
                sums = self.run(tiles, loop.iv + i * self.span, row, sums)
            loop.yield_(*sums)
        return loop.results

    def run(self, tiles: Lanes, group: Value, row: Value, sums: Lanes) -> Lanes:
        """Add `span` groups. row: where the token's activations start, in groups or columns."""
        return self.add(self.blocks(tiles, group), row + group * self.inside, sums)

    def blocks(self, tiles: Lanes, group: Value) -> list[Block]:
        """A group of each tile."""
        return [self.reader.block(tile, group) for tile in tiles]

    @staticmethod
    def of_each(blocks: Sequence[Block], value: Callable[[Block, int], Value]) -> list[Value]:
        """A value of each sub-tile."""
        return [value(block, r) for block in blocks for r in range(SUBTILES)]

    @abstractmethod
    def add(self, blocks: Sequence[Block], first: Value, sums: Lanes) -> Lanes:
        """Add a group, whose activations start at `first`, in groups or columns."""


class IntegerGroups(Groups):
    """The same for activations that are integers q with scales s and sums z: all in one order.

    unit: a factor of all scales of the activation.
    """

    def __init__(self, reader: CodeReader, inside: int, together: int, unit: float = 1.0):
        super().__init__(reader, inside, together)
        self.unit = unit
        self.span = self.layout.count

    @abstractmethod
    def dots(self, places: Sequence[Place], group: Value) -> list[Value]:
        """Integer products of one activation group, whose codes start at places, as f32 lanes."""

    def run(self, tiles: Lanes, group: Value, row: Value, sums: Lanes) -> Lanes:
        """See Groups. Groups that share floats: `S = shared * small`, and Z alike with its own."""
        b, layout, reader = self.b, self.layout, self.reader
        if layout.tree is None:
            return super().run(tiles, group, row, sums)
        own = layout.has_zero and not layout.integer_zero
        zeros = [b.const(0.0, FLOATS)] * (len(sums) * (2 if own else 1))
        with b.for_(0, layout.count, inits=zeros) as loop:
            pair = (loop.args[: len(sums)], loop.args[-len(sums) :])
            one = group + loop.iv
            found = self._pair(self.blocks(tiles, one), row + one * self.inside, pair)
            loop.yield_(*(value for part in found[: 2 if own else 1] for value in part))
        blocks = self.blocks(tiles, group)
        for kind in range(2 if own else 1):
            parts = loop.results[kind * len(sums) : (kind + 1) * len(sums)]
            shared = [reader.shared(block, r, kind) for block in blocks for r in range(SUBTILES)]
            sums = [b.fma(f, one, y) for f, one, y in zip(shared, parts, sums, strict=True)]
        return sums

    def add(self, blocks: Sequence[Block], first: Value, sums: Lanes) -> Lanes:
        """See Groups."""
        return self._pair(blocks, first, (sums, sums))[1]

    def _pair(
        self, blocks: Sequence[Block], first: Value, sums: tuple[Lanes, Lanes]
    ) -> tuple[Lanes, Lanes]:
        """Add a group to what is scaled and what is shifted; these two may be one."""
        b = self.b
        if self.inside == 1:
            dots = self.dots([(block, block.at) for block in blocks], first)
            scales = self.of_each(blocks, self.reader.small_scale)
            scale = b.buffer("s").load(first)
            splat = b.broadcast(self._with_unit(scale), LANES)
            scaled = [b.fma(d, f * splat, y) for d, f, y in zip(dots, scales, sums[0], strict=True)]
            weighted = scale * self.sum_of(first)
        else:
            *within, weighted = self._parts(blocks, first)
            scales = self.of_each(blocks, self.reader.small_scale)
            scaled = [b.fma(d, f, y) for d, f, y in zip(within, scales, sums[0], strict=True)]
        if not self.layout.has_zero:
            return scaled, scaled
        splat = b.broadcast(weighted, LANES)
        alone = self.layout.tree is not None and not self.layout.integer_zero
        targets = sums[1] if alone else scaled
        shifted = [
            b.fma(zero, splat, y)
            for zero, y in zip(self._zeros(blocks, scales), targets, strict=True)
        ]
        return (scaled, shifted) if alone else (shifted, shifted)

    def _zeros(self, blocks: Sequence[Block], scales: Lanes) -> list[Value]:
        zeros = self.of_each(blocks, self.reader.small_zero)
        if not self.layout.integer_zero:
            return zeros
        return [-(scale * zero) for scale, zero in zip(scales, zeros, strict=True)]

    def _parts(self, blocks: Sequence[Block], first: Value) -> list[Value]:
        """The products of a group's activation groups with their scales, and sum of these."""
        b = self.b
        zeros = [b.const(0.0, FLOATS)] * (SUBTILES * len(blocks))
        with b.for_(0, self.inside, inits=[*zeros, b.const(0.0, f32)]) as loop:
            part = first + loop.iv
            span = self.layout.code_bytes // self.inside
            dots = self.dots([(block, block.at + loop.iv * span) for block in blocks], part)
            scale = b.buffer("s").load(part)
            splat = b.broadcast(self._with_unit(scale), LANES)
            within = [b.fma(d, splat, y) for d, y in zip(dots, loop.args[:-1], strict=True)]
            loop.yield_(*within, b.fma(scale, self.sum_of(part), loop.args[-1]))
        return loop.results

    def _with_unit(self, scale: Value) -> Value:
        return scale if self.unit == 1.0 else scale * self.unit

    def sum_of(self, group: Value) -> Value:
        """The sum of an activation group's integers, as f32."""
        return self.b.sitofp(self.b.buffer("z").load(group))
