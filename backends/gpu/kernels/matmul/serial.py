"""Products of bit planes: of every pair of planes the common bits are counted, by `mma` on bits.

With codes c of weights and a of activations, whose integers are `2 a - L`, L = 2**bits - 1, a group
has

    sum (step c + first) (2 a - L) = step (2 P - L C) + first X,    P = sum 2**(i + j) |c_i & a_j|

of which C, the sum of codes, lies in the record and X, that of the activations' integers, comes
with their quantization (bipolar-INT, arXiv 2409.17870). Pairs are taken from the heaviest to the
lightest, and what was counted is doubled between them. As in `integer`, P ends as a float's bits.
"""

from dataclasses import dataclass

from xdsl.dialects.builtin import f32, i32, i64

from nybble.backends.building.values import Value
from nybble.backends.gpu.kernels.matmul.integer import MAGIC, MAGIC_BITS, ROOM
from nybble.backends.gpu.kernels.matmul.spec import StreamSpec
from nybble.backends.gpu.kernels.matmul.stored import Stored, Tokens, all_moved
from nybble.backends.gpu.kernels.matmul.stream import StreamKernel
from nybble.backends.gpu.kernels.matmul.sums import Sums
from nybble.backends.gpu.kernels.rows.planes import PlanesSpec
from nybble.backends.gpu.packing.kind import Line
from nybble.backends.gpu.packing.stream import PlaneLayout

MOST_SUMS = 8
"""Fragments times tiles of tokens that registers have room for."""
OF_BYTES = 1 / 16
"""The time of a pair of bits, of that of a product of 16-bit floats: 8 times the rate of bytes, as
NVIDIA states for the A100; assumed of others."""


@dataclass(frozen=True)
class SerialSpec(StreamSpec):
    """Activations are what a quantization to `bits` bipolar planes leaves, in groups as weights."""

    planes: PlaneLayout
    bits: int

    def __post_init__(self) -> None:
        pairs = (2**self.kind.bits - 1) * (2**self.bits - 1)
        assert self.kind.unit == 1.0, "codes on a line have no unit"
        assert pairs * self.planes.step // self.planes.groups < ROOM

    @property
    def line(self) -> Line:
        """What codes of weights mean."""
        assert isinstance(self.kind.meaning, Line)
        return self.kind.meaning

    @property
    def activations(self) -> str:
        """See StreamSpec."""
        return f"b{self.bits}"

    @property
    def most_sums(self) -> int:
        """See StreamSpec."""
        return MOST_SUMS

    @property
    def effort(self) -> float:
        """See StreamSpec."""
        return self.kind.bits * self.bits * OF_BYTES

    def token_bytes(self, columns: int) -> int:
        """See StreamSpec."""
        return columns * self.bits // 8

    @property
    def lane_bytes(self) -> int:
        """See StreamSpec."""
        return 4 * self.bits * self.planes.lane_words

    @property
    def quantized(self) -> PlanesSpec:
        """See StreamSpec."""
        layout = self.planes
        run = layout.step // layout.groups
        return PlanesSpec(self.tokens, layout.cols, self.bits, layout.group, layout.block, run)


@dataclass(frozen=True)
class Activations:
    """Where this lane's planes, and the numbers of its two tokens, begin in each tile of tokens."""

    planes: list[Tokens]
    scales: list[Tokens]
    totals: list[Tokens]


class SerialKernel(StreamKernel[Activations]):
    """See StreamKernel."""

    def __init__(self, spec: SerialSpec, name: str):
        super().__init__(spec, name)
        self.serial = spec
        self.quantized = spec.quantized

    def activations(self, job: Value) -> Activations:
        """See StreamKernel."""
        b, pitch = self.b, self.quantized.pitch
        first = self.first_token(job) + self.quad * 2
        scales, totals = (
            self.by_tile(first, pitch - 2, 4, lambda token, base=base: b.offset(
                base, b.zext(token * 4, i64)))
            for base in self.inputs[1:]
        )  # fmt: skip
        return Activations(self.tokens(job), scales, totals)

    def record(self, place: Value, activations: Activations, step: Value) -> "SerialRecord":
        """See StreamKernel."""
        b, layout, pitch = self.b, self.serial.planes, self.quantized.pitch
        along = b.zext(step * self.spec.token_bytes(layout.step), i64)
        sums = b.zext(step * (layout.groups * pitch * 4), i64)
        groups = step * layout.groups
        if layout.group > layout.step:
            groups = b.binary("udiv", step, b.const(layout.group // layout.step, i32))
        scales = b.zext(groups * (pitch * 4), i64)
        at = Activations(
            all_moved(b, activations.planes, along),
            all_moved(b, activations.scales, scales),
            all_moved(b, activations.totals, sums),
        )
        return SerialRecord(self, place, at)

    def finished(self, token: Value, value: Value) -> Value:
        """See StreamKernel."""
        return value


class SerialRecord:
    """A record in shared memory, and the activations at its columns."""

    def __init__(self, by: SerialKernel, place: Value, activations: Activations):
        self.by = by
        self.b = by.b
        self.spec = by.serial
        self.layout = by.serial.planes
        self.at = activations
        self.stored = Stored(by.b, by.serial.planes, place, by.lane)
        self._loaded: dict[tuple[int, int], list[Value]] = {}

    def load_activations(self) -> None:
        """See Multiplies."""
        for unit in range(self.layout.units):
            for n in range(self.spec.token_tiles):
                self.planes(unit, n)

    def planes(self, unit: int, n: int) -> list[Value]:
        """This lane's words of all planes of a tile of tokens: [plane][word]."""
        if (unit, n) not in self._loaded:
            tokens, size = self.at.planes[n], self.spec.lane_bytes
            most = min(16, size & -size)
            first = tokens.offset + unit * 4 * size
            self._loaded[unit, n] = [
                word
                for at in range(first, first + size, most)
                for word in self.b.load_words(tokens.pointer, at, most // 4)
            ]
        return self._loaded[unit, n]

    def add_to(self, sums: Sums) -> None:
        """See Multiplies."""
        layout = self.layout
        numbers = self.stored.all_scales(layout.numbers)
        for group in range(layout.groups):
            counted = self.counted(group)
            self.add_group(sums, counted, group, [one[group] for one in numbers])

    def counted(self, group: int) -> Sums:
        """P of a group, by fragment and tile of tokens, as the bits of MAGIC and more."""
        b, spec, layout = self.b, self.spec, self.layout
        fragments, tiles = layout.placement.fragments, spec.token_tiles
        count = layout.units // layout.groups
        units = range(group * count, (group + 1) * count)
        words = {unit: self.stored.unit_words(unit) for unit in units}
        heaviest = spec.kind.bits + spec.bits - 2
        start = b.const(0 if heaviest else MAGIC_BITS, i32)
        sums = [[[start] * 4 for _ in range(tiles)] for _ in range(fragments)]
        for weight in range(heaviest, -1, -1):
            for i in range(fragments):
                for n in range(tiles):
                    for unit in units:
                        sums[i][n] = self.pairs(sums[i][n], words[unit], unit, (i, n), weight)
                    if weight:
                        doubled = [one << 1 for one in sums[i][n]]
                        sums[i][n] = [one + MAGIC_BITS if weight == 1 else one for one in doubled]
        return sums

    def pairs(
        self, quad: list[Value], words: list[Value], unit: int, place: tuple[int, int], weight: int
    ) -> list[Value]:
        """The counts of the pairs of planes of a weight 2**weight, added."""
        b, spec, per_lane = self.b, self.spec, self.layout.lane_words
        (fragment, n), planes = place, spec.kind.bits
        kind = f"m16n8k{self.layout.block}.row.col.s32.b1.b1.s32.and.popc"
        for plane in range(planes):
            other = weight - plane
            if 0 <= other < spec.bits:
                first = (fragment * planes + plane) * 2 * per_lane
                a = words[first : first + 2 * per_lane]
                tokens = self.planes(unit, n)[other * per_lane : (other + 1) * per_lane]
                quad = b.mma(kind, a, tokens, quad)
        return quad

    def pair(self, tokens: Tokens, group: int) -> list[Value]:
        """The numbers that a group's activations have, of this lane's two tokens."""
        at = tokens.offset + group * self.by.quantized.pitch * 4
        words = self.b.load_words(tokens.pointer, at, 2)
        return [self.b.reinterpret(word, f32) for word in words]

    def add_group(self, sums: Sums, counted: Sums, group: int, numbers: list[list[Value]]) -> None:
        """Scale the products of a group, and add them to the sums."""
        b, line, zero = self.b, self.spec.line, self.layout.zero
        scales, codes, *zeros = numbers
        less = -float((2**self.spec.bits - 1) * line.step)
        doubled = b.const(2.0 * line.step, f32)
        for n in range(self.spec.token_tiles):
            scale, total = self.pair(self.at.scales[n], group), self.pair(self.at.totals[n], group)
            for i, by_token in enumerate(counted):
                for e, bits in enumerate(by_token[n]):
                    row, x = 2 * i + e // 2, total[e % 2]
                    first = b.const(float(line.first), f32)
                    if zero == "points":
                        first = first - zeros[0][row]
                    rest = b.fma(first, x, codes[row] * less)
                    whole = b.fma(b.reinterpret(bits, f32) - MAGIC, doubled, rest)
                    made = b.fma(scales[row] * scale[e % 2], whole, sums[i][n][e])
                    if zero == "minimum":
                        made = b.fma(zeros[0][row] * scale[e % 2], x, made)
                    sums[i][n][e] = made
