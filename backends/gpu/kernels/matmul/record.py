"""The products of one record of weights: fragments are decoded, multiplied and scaled by group.

With codes left above what they mean by a surplus that is the same along a row, the products of a
group are `P = sum (T(c) + surplus) x`, and `surplus * X` is taken off, where `X = sum x` comes from
one more `mma`, with a fragment of ones. Else the surplus is subtracted from the fragments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import f32, i32, i64

from nybble.backends.building.values import Value, vec
from nybble.backends.gpu.builder import ELEMENTS
from nybble.backends.gpu.kernels.matmul.decode import Words, half_bits
from nybble.backends.gpu.kernels.matmul.sums import Sums
from nybble.backends.gpu.packing.stream import LANES, LOAD, SCALE_BYTES

if TYPE_CHECKING:
    from nybble.backends.gpu.kernels.matmul.flat import FlatKernel

TILES = 4
"""Tiles of 16 columns in a unit."""


@dataclass(frozen=True)
class Tokens:
    """Where a lane's activations of a tile of tokens begin: `offset` bytes after a pointer."""

    pointer: Value
    offset: int


class Record:
    """A record in shared memory, its activations at a step along the columns."""

    def __init__(self, kernel: FlatKernel, place: Value, tokens: Sequence[Tokens], step: Value):
        self.kernel = kernel
        self.b = kernel.b
        self.spec = kernel.spec
        self.layout = kernel.layout
        self.place = place
        along = self.b.zext(step * (self.layout.step * 2), i64)
        moved = {id(one.pointer): self.b.offset(one.pointer, along) for one in tokens}
        self.tokens = [Tokens(moved[id(one.pointer)], one.offset) for one in tokens]
        self._loaded: dict[tuple[int, int], list[Value]] = {}

    def add_to(self, sums: Sums) -> None:
        """Multiply, scale, and add to the sums."""
        layout, words = self.layout, self.layout.placement.words
        scales = self.scales(0)
        zeros = self.scales(1) if layout.zero else [None] * layout.groups
        per_group = layout.units * TILES // layout.groups
        unit: list[Value] = []
        for index in range(layout.groups):
            group = Group(self, scales[index], zeros[index])
            for tile in range(index * per_group, (index + 1) * per_group):
                if tile % TILES == 0:
                    unit = self.unit_words(tile // TILES)
                first = tile % TILES * words
                group.multiply(tile, Words(self.b, unit[first : first + words]))
            group.add_to(sums)

    def unit_words(self, unit: int) -> list[Value]:
        """The words of this lane of a unit."""
        b, layout = self.b, self.layout
        mine = b.offset(self.place, self.kernel.lane * LOAD)
        found: list[Value] = []
        for load in range(layout.loads):
            at = (unit * layout.loads + load) * LANES * LOAD
            found += b.lanes_of(b.load(b.offset(mine, at), vec(4, i32)))
        return found

    def scales(self, kind: int) -> list[list[Value]]:
        """By group: f32 of each fragment's two rows. kind: 0 scales, 1 zeros."""
        b, layout = self.b, self.layout
        size, width = layout.lane_scale_bytes, SCALE_BYTES[layout.scale]
        mine = b.offset(self.place, self.kernel.row * size)
        first = layout.code_bytes + kind * layout.scale_bytes
        most = min(LOAD, size & -size)
        numbers: list[Value] = []
        for at in range(0, size, most):
            place = b.offset(mine, first + at)
            if layout.scale == "bf16":
                words = b.lanes_of(b.load(place, vec(most // 4, i32)))
                numbers += [b.reinterpret(one, f32) for w in words for one in (w << 16, w & -65536)]
            else:
                loaded = b.load(place, vec(most // width, ELEMENTS[layout.scale]))
                numbers += [b.to_float(one) for one in b.lanes_of(loaded)]
        count = 2 * layout.placement.fragments
        return [numbers[i : i + count] for i in range(0, len(numbers), count)]

    def load_activations(self) -> None:
        """Load all activations of the record before the weights are waited for."""
        for tile in range(self.layout.units * TILES):
            for token_tile in range(self.spec.token_tiles):
                self.activations(tile, token_tile)

    def activations(self, tile: int, token_tile: int) -> list[Value]:
        """The two registers of the B operand; those of two tiles are loaded at once."""
        together = self.layout.run_columns // 16
        first = tile - tile % together
        key = (first, token_tile)
        if key not in self._loaded:
            tokens = self.tokens[token_tile]
            at = tokens.offset + first * 16 * 2
            self._loaded[key] = self.b.load_words(tokens.pointer, at, 2 * together)
        at = 2 * (tile - first)
        return self._loaded[key][at : at + 2]


class Group:
    """The products of one group of columns.

    scales, zeros: f32 of the two rows of each fragment.
    """

    def __init__(self, record: Record, scales: Sequence[Value], zeros: Sequence[Value] | None):
        self.record = record
        self.b = record.b
        self.spec = spec = record.spec
        self.decoder = record.kernel.decoder
        self.scales = scales
        self.zeros = zeros
        nothing = self.b.const(0.0, f32)
        fragments = spec.layout.placement.fragments
        self.products: Sums = [
            [[nothing] * 4 for _ in range(spec.token_tiles)] for _ in range(fragments)
        ]
        self.totals = [[nothing] * 4 for _ in range(spec.token_tiles)]

    def multiply(self, tile: int, words: Words) -> None:
        """Add the products of a tile of 16 columns."""
        b, dtype = self.b, self.spec.activations
        kind = f"m16n8k16.row.col.f32.{dtype}.{dtype}.f32"
        tokens = [self.record.activations(tile, n) for n in range(self.spec.token_tiles)]
        if self.spec.has_totals:
            one = half_bits([1.0], dtype)[0]
            ones = [b.word(one * 0x10001)] * 4
            for n, operand in enumerate(tokens):
                self.totals[n] = b.mma(kind, ones, operand, self.totals[n])
        for i, by_token in enumerate(self.products):
            fragment = self.decoder.fragment(words, i, self.less(i))
            for n, operand in enumerate(tokens):
                by_token[n] = b.mma(kind, fragment, operand, by_token[n])

    def less(self, fragment: int) -> list[Value] | None:
        """What the decoder is to subtract from the two rows of a fragment; None for nothing."""
        b, spec = self.b, self.spec
        surplus = [self.decoder.surplus(fragment, upper) for upper in (0, 1)]
        points = self.zeros is not None and spec.layout.zero == "points"
        if not spec.tuning.subtract or (not any(surplus) and not points):
            return None
        if self.zeros is None or not points:
            bits = half_bits(surplus, spec.activations)
            return [b.word(one * 0x10001) for one in bits]
        found: list[Value] = []
        for upper, above in enumerate(surplus):
            moved = self.zeros[2 * fragment + upper] * (1 / self.decoder.factor) + above
            half = b.to_float(moved, ELEMENTS[spec.activations])
            found.append(b.reinterpret(b.broadcast(half, 2), i32))
        return found

    def add_to(self, sums: Sums) -> None:
        """Add the group, scaled, to the sums."""
        for i, by_token in enumerate(self.products):
            for upper in (0, 1):
                scale, less = self.scales[2 * i + upper], self.remainder(i, upper)
                for n, quad in enumerate(by_token):
                    for e in (2 * upper, 2 * upper + 1):
                        added = self.b.fma(scale, quad[e], sums[i][n][e])
                        if less is not None:
                            added = self.b.fma(less, self.totals[n][e % 2], added)
                        sums[i][n][e] = added

    def remainder(self, fragment: int, upper: int) -> Value | None:
        """What a row's sums of activations are multiplied by to complete its products."""
        spec, scale = self.spec, self.scales[2 * fragment + upper]
        zero = None if self.zeros is None else self.zeros[2 * fragment + upper]
        unit = 1 / self.decoder.factor / spec.kind.unit
        surplus = 0.0 if spec.tuning.subtract else self.decoder.surplus(fragment, upper)
        if spec.layout.zero == "minimum":
            assert zero is not None
            own = zero * unit if unit != 1.0 else zero
            return self.b.fma(scale, self.b.const(-surplus, f32), own) if surplus else own
        if spec.tuning.subtract:
            return None
        if zero is not None:
            return scale * -(zero * (1 / self.decoder.factor) + surplus)
        return scale * -surplus if surplus else None
