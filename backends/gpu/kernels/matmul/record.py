"""The products of one record of weights: fragments are decoded, multiplied and scaled by group.

With codes left above what they mean by a surplus that is the same along a row, the products of a
group are `P = sum (T(c) + surplus) x`, and `surplus * X` is taken off, where `X = sum x` comes from
one more `mma`, with a fragment of ones. With more tokens it is less work to subtract the surplus
from fragments, and, where scales are of the activations' type, to multiply these: then there are no
products of a group but its part of the sums, which leaves registers for more tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from xdsl.dialects.builtin import f32, i32, i64

from nybble.backends.building.values import Value
from nybble.backends.gpu.builder import ELEMENTS, GpuBuilder
from nybble.backends.gpu.kernels.matmul.decode import Decoder, Words, half_bits
from nybble.backends.gpu.kernels.matmul.spec import FlatSpec
from nybble.backends.gpu.kernels.matmul.stored import Stored, Tokens, all_moved
from nybble.backends.gpu.kernels.matmul.sums import Sums
from nybble.backends.gpu.packing.stream import TILES


@dataclass(frozen=True)
class Multiplier:
    """What multiplies records: the kernel's builder, spec and decoder, and this lane's index."""

    b: GpuBuilder
    spec: FlatSpec
    decoder: Decoder
    lane: Value


class Record:
    """A record in shared memory, its activations at a step along the columns."""

    def __init__(self, by: Multiplier, place: Value, tokens: list[Tokens], step: Value):
        self.by = by
        self.b = by.b
        self.spec = by.spec
        self.layout = by.spec.layout
        self.stored = Stored(by.b, by.spec.layout, place, by.lane)
        along = self.b.zext(step * self.spec.token_bytes(self.layout.step), i64)
        self.tokens = all_moved(self.b, tokens, along)
        self._loaded: dict[tuple[int, int], list[Value]] = {}

    def add_to(self, sums: Sums) -> None:
        """Multiply, scale, and add to the sums."""
        layout, words = self.layout, self.layout.placement.words
        read = self.stored.halves if self.spec.tuning.scale else self.stored.scales
        scales = [read(0, group) if layout.scale else [] for group in range(layout.groups)]
        zeros = [read(1, group) if layout.zero else None for group in range(layout.groups)]
        per_group = layout.units * TILES // layout.groups
        unit, table = list[Value](), self.stored.table()
        for index in range(layout.groups):
            group = Group(self.by, scales[index], zeros[index], sums)
            for tile in range(index * per_group, (index + 1) * per_group):
                if tile % TILES == 0:
                    unit = self.stored.unit_words(tile // TILES)
                first = tile % TILES * words
                tokens = [self.activations(tile, n) for n in range(self.spec.token_tiles)]
                group.multiply(tokens, Words(self.b, unit[first : first + words], table))
            if not self.spec.tuning.scale:
                group.add_to(sums)

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

    scales, zeros: of the two rows of each fragment, f32, or where fragments are scaled, two equal
    16-bit floats; then products are added to `sums`, else in sums of the group.
    """

    def __init__(
        self,
        by: Multiplier,
        scales: Sequence[Value],
        zeros: Sequence[Value] | None,
        sums: Sums,
    ):
        self.b = by.b
        self.spec = spec = by.spec
        self.decoder = by.decoder
        self.scales = scales
        self.zeros = zeros
        nothing = self.b.const(0.0, f32)
        fragments = spec.layout.placement.fragments
        self.products = sums
        if not spec.tuning.scale:
            self.products = [
                [[nothing] * 4 for _ in range(spec.token_tiles)] for _ in range(fragments)
            ]
        self.totals = [[nothing] * 4 for _ in range(spec.token_tiles)]

    def multiply(self, tokens: list[list[Value]], words: Words) -> None:
        """Add the products of a tile of 16 columns; tokens: the B operands."""
        b, dtype = self.b, self.spec.half
        kind = f"m16n8k16.row.col.f32.{dtype}.{dtype}.f32"
        if self.spec.has_totals:
            one = half_bits([1.0], dtype)[0]
            ones = [b.word(one * 0x10001)] * 4
            for n, operand in enumerate(tokens):
                self.totals[n] = b.mma(kind, ones, operand, self.totals[n])
        for i, by_token in enumerate(self.products):
            fragment = self.exact(self.decoder.fragment(words, i), i)
            for n, operand in enumerate(tokens):
                by_token[n] = b.mma(kind, fragment, operand, by_token[n])

    def exact(self, registers: list[Value], fragment: int) -> list[Value]:
        """A fragment without surplus, and scaled, as the tuning says."""
        b, spec, dtype = self.b, self.spec, self.spec.half
        less = [self.less(fragment, upper) if spec.tuning.subtract else [] for upper in (0, 1)]
        made: list[Value] = []
        for i, whole in enumerate(registers):
            for one in less[i % 2]:
                whole = b.subtract_halves(whole, one, dtype)
            if spec.tuning.scale and spec.layout.scale:
                zero = b.word(0x80008000)
                if self.zeros is not None and spec.layout.zero == "minimum":
                    zero = self.zeros[2 * fragment + i % 2]
                whole = b.fuse_halves(whole, self.scales[2 * fragment + i % 2], zero, dtype)
            made.append(whole)
        return made

    def less(self, fragment: int, upper: int) -> list[Value]:
        """What to subtract from a row of a fragment, each as two equal 16-bit floats.

        A surplus with a fraction may have too many digits for one of them.
        """
        b, dtype = self.b, self.spec.half
        surplus = self.decoder.surplus(fragment, upper)
        parts = [float(floor(surplus)), surplus % 1]
        words = [b.word(half_bits([part], dtype)[0] * 0x10001) for part in parts if part]
        if self.zeros is None or self.spec.layout.zero != "points":
            return words
        zero = self.zeros[2 * fragment + upper]
        if not self.spec.tuning.scale:
            half = b.to_float(zero, ELEMENTS[dtype])
            zero = b.reinterpret(b.broadcast(half, 2), i32)
        share = b.word(half_bits([1 / self.decoder.factor], dtype)[0] * 0x10001)
        return [b.fuse_halves(zero, share, words[0], dtype), *words[1:]]

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
