"""Products of activations in 8-bit integers: exact within a group of weights, by `mma` on bytes.

Sums of a group begin with the bits of 1.5 * 2**23. While less than 2**22 is added to them, the sum
is the bits of a float that has the integer exactly, so that no conversion is needed to scale it.
Sums of activations, which their quantization leaves by groups, complete what codes stand for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import f32, i32, i64

from nybble.backends.building.values import Value
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.kernels.matmul.decode import Words
from nybble.backends.gpu.kernels.matmul.octets import ByteDecoder, byte_decoder
from nybble.backends.gpu.kernels.matmul.spec import StreamSpec
from nybble.backends.gpu.kernels.matmul.stored import Stored, Tokens, all_moved
from nybble.backends.gpu.kernels.matmul.stream import StreamKernel
from nybble.backends.gpu.kernels.matmul.sums import Sums
from nybble.backends.gpu.kernels.rows.quantize import QuantizeSpec
from nybble.backends.gpu.packing.bytes import Octets
from nybble.backends.gpu.packing.stream import LOAD, TILES, UNIT

MAGIC_BITS, MAGIC = 0x4B400000, 1.5 * 2.0**23
"""The bits of a float, of whose mantissa a unit is worth 1, and the float."""
ROOM = 2**22
"""What may be added to it."""
LARGEST = 127
"""Of an activation."""
MOST_SUMS = 16
"""Fragments times tiles of tokens that registers have room for."""
MOST_RUN = 128
"""The most columns of one sum of activations."""


@dataclass(frozen=True)
class IntegerSpec(StreamSpec):
    """Activations are what a quantization to 8 bits, with a scale for each token, leaves."""

    def __post_init__(self) -> None:
        columns = min(self.layout.step, self.layout.group)
        assert (2**self.kind.bits - 1) * LARGEST * columns < ROOM

    @property
    def activations(self) -> str:
        """See StreamSpec."""
        return "i8"

    @property
    def most_sums(self) -> int:
        """See StreamSpec."""
        return MOST_SUMS

    @property
    def effort(self) -> float:
        """See StreamSpec."""
        return 0.5

    def token_bytes(self, columns: int) -> int:
        """See StreamSpec."""
        return columns

    @property
    def lane_bytes(self) -> int:
        """See StreamSpec."""
        return LOAD

    @property
    def quantized(self) -> QuantizeSpec:
        """The quantization that leaves activations as the kernel reads them."""
        layout = self.layout
        run = min(layout.step, layout.group, MOST_RUN)
        order = Octets(layout.placement).order
        return QuantizeSpec(self.tokens, layout.cols, layout.run_columns, order, run)


@dataclass(frozen=True)
class Activations:
    """Where this lane's codes, and the sums of its two tokens, begin in each tile of tokens."""

    codes: list[Tokens]
    totals: list[Tokens]


class IntegerKernel(StreamKernel[Activations]):
    """See StreamKernel."""

    def __init__(self, spec: IntegerSpec, name: str):
        super().__init__(spec, name)
        self.quantized = spec.quantized
        self.decoder = byte_decoder(self.b, self.layout.placement, spec.kind.meaning)
        self.factor = self.decoder.factor * spec.kind.unit

    def activations(self, job: Value) -> Activations:
        """See StreamKernel."""
        b, pitch = self.b, self.quantized.pitch

        def place(token: Value) -> Value:
            return b.offset(self.inputs[2], b.zext(token * 4, i64))

        first = self.first_token(job) + self.quad * 2
        return Activations(self.tokens(job), self.by_tile(first, pitch - 2, 4, place))

    def record(self, place: Value, activations: Activations, step: Value) -> "IntegerRecord":
        """See StreamKernel."""
        b, quantized = self.b, self.quantized
        along = b.zext(step * self.layout.step, i64)
        sums = b.zext(step * (self.layout.step // quantized.run * quantized.pitch * 4), i64)
        codes = all_moved(b, activations.codes, along)
        totals = all_moved(b, activations.totals, sums)
        return IntegerRecord(self, place, Activations(codes, totals))

    def finished(self, token: Value, value: Value) -> Value:
        """See StreamKernel: times the scale of the token."""
        b = self.b
        known = b.min(token, self.spec.tokens - 1)
        (bits,) = b.load_words(b.offset(self.inputs[1], b.zext(known * 4, i64)), 0, 1)
        scale = b.reinterpret(bits, f32)
        return value * (scale * self.factor if self.factor != 1.0 else scale)


class IntegerRecord:
    """A record in shared memory, and the activations at its columns."""

    def __init__(self, by: IntegerKernel, place: Value, activations: Activations):
        self.by = by
        self.b: GpuBuilder = by.b
        self.layout = by.layout
        self.decoder: ByteDecoder = by.decoder
        self.tiles = by.spec.token_tiles
        self.at = activations
        self.stored = Stored(by.b, by.layout, place, by.lane)
        self._loaded: dict[tuple[int, int], list[Value]] = {}

    def load_activations(self) -> None:
        """See Multiplies."""
        for unit in range(self.layout.units):
            for n in range(self.tiles):
                self.codes(unit, n)

    def codes(self, unit: int, n: int) -> list[Value]:
        """A word of this lane's codes for each tile of 16 columns of a unit."""
        if (unit, n) not in self._loaded:
            tokens = self.at.codes[n]
            self._loaded[unit, n] = self.b.load_words(
                tokens.pointer, tokens.offset + unit * UNIT, TILES
            )
        return self._loaded[unit, n]

    def totals(self, group: int) -> list[list[Value]]:
        """By tile of tokens: the sums of a group's activations of this lane's two tokens."""
        b, quantized, layout = self.b, self.by.quantized, self.layout
        runs = layout.step // layout.groups // quantized.run
        found: list[list[Value]] = []
        for tokens in self.at.totals:
            pairs: list[list[Value]] = []
            for run in range(group * runs, (group + 1) * runs):
                at = tokens.offset + run * quantized.pitch * 4
                words = b.load_words(tokens.pointer, at, 2)
                pairs.append([b.reinterpret(word, f32) for word in words])
            added = pairs[0]
            for other in pairs[1:]:
                added = [x + y for x, y in zip(added, other, strict=True)]
            found.append(added)
        return found

    def add_to(self, sums: Sums) -> None:
        """See Multiplies."""
        layout = self.layout
        scales, *zeros = self.stored.all_scales(2 if layout.zero else 1)
        needed = layout.zero != "" or self.decoder.offset != 0
        for group in range(layout.groups):
            totals = self.totals(group) if needed else []
            products = self.multiplied(group)
            zero = zeros[0][group] if zeros else None
            self.add_group(sums, products, totals, scales[group], zero)

    def multiplied(self, group: int) -> Sums:
        """The products of a group, as the bits of MAGIC and more."""
        b, layout = self.b, self.layout
        start, words = b.const(MAGIC_BITS, i32), layout.placement.words
        fragments = range(layout.placement.fragments)
        sums = [[[start] * 4 for _ in range(self.tiles)] for _ in fragments]
        count = layout.units * TILES // layout.groups
        together = layout.run_columns // 16
        shape = f"m16n8k{16 * together}"
        kind = f"{shape}.row.col.s32.{self.decoder.kind}.s8.s32"
        unit: list[Value] = []
        for tile in range(group * count, (group + 1) * count, together):
            index, first = divmod(tile, TILES)
            if first == 0 or not unit:
                unit = self.stored.unit_words(index)
            tiles = range(first, first + together)
            held = [Words(b, unit[i * words : (i + 1) * words]) for i in tiles]
            operands = [self.codes(index, n)[first : first + together] for n in range(self.tiles)]
            for i in fragments:
                a = [word for tile_words in held for word in self.decoder.rows(tile_words, i)]
                for n, operand in enumerate(operands):
                    sums[i][n] = b.mma(kind, a, operand, sums[i][n])
        return sums

    def add_group(
        self,
        sums: Sums,
        products: Sums,
        totals: Sequence[Sequence[Value]],
        scales: Sequence[Value],
        zeros: Sequence[Value] | None,
    ) -> None:
        """Scale the products of a group, and add them to the sums."""
        b, zero = self.b, self.layout.zero
        starts = [[self.start(one) for one in pair] for pair in totals]
        for i, by_token in enumerate(products):
            for n, quad in enumerate(by_token):
                for e, bits in enumerate(quad):
                    row = 2 * i + e // 2
                    whole = self.exact(b.reinterpret(bits, f32), starts[n][e % 2] if starts else [])
                    if zeros is not None and zero == "points":
                        less = zeros[row] * (-1 / self.decoder.factor)
                        whole = b.fma(less, totals[n][e % 2], whole)
                    added = b.fma(scales[row], whole, sums[i][n][e])
                    if zeros is not None and zero == "minimum":
                        more = zeros[row] * (1 / self.by.factor)
                        added = b.fma(more, totals[n][e % 2], added)
                    sums[i][n][e] = added

    def start(self, total: Value) -> list[Value]:
        """What to add to a product and MAGIC, one after the other: each sum is exact."""
        offset = self.decoder.offset
        if offset == 0:
            return []
        if offset == int(offset):
            return [self.b.fma(total, self.b.const(offset, f32), self.b.const(-MAGIC, f32))]
        return [self.b.const(-MAGIC, f32), total * offset]

    def exact(self, product: Value, start: Sequence[Value]) -> Value:
        """The products of a group, and its offset's."""
        for one in start or [self.b.const(-MAGIC, f32)]:
            product = product + one
        return product
