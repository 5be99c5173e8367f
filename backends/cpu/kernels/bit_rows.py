"""Quantization of f32 activation rows to bipolar integers in bit planes, one scale per group.

The codes are those that the format's own quantizer finds, bit for bit: the number of even
thresholds below `x / s`. The scale is `amax / (2^bits - 1)`, or with one bit the mean magnitude.
"""

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.dialects import math

from nybble.backends.cpu.bit_planes import WORD, words_of
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f32, i32, vec
from nybble.backends.cpu.kernels.loops import padded_rows
from nybble.backends.cpu.kernels.norm import NormQuantizer
from nybble.backends.cpu.kernels.quantize import MAGNITUDE_BITS, RowQuantizer, RowValues

FLOATS = vec(WORD, f32)
WORDS = vec(WORD, i32)


@dataclass(frozen=True)
class PlaneRows:
    """Output rows: q i32 [rows][group][word][plane], s f32 and z i32 [rows, width / group].

    bits: planes of a code. z: sums of the bipolar integers. lanes: of the vectors that are read.
    Bits of columns beyond a group are zero.
    """

    width: int
    rows: int
    group: int
    bits: int
    lanes: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise ValueError(f"activations of {self.bits} bits are not of 1 to 8")
        if self.group < 1 or self.width % self.group:
            raise ValueError(
                f"row length {self.width} is not a multiple of the group size {self.group}"
            )

    @property
    def groups(self) -> int:
        """Groups in a row."""
        return self.width // self.group

    @property
    def words(self) -> int:
        """Words of a plane of a group."""
        return words_of(self.group)

    @property
    def buffers(self) -> list[BufferSpec]:
        """q, s, z."""
        groups = padded_rows(self.rows) * self.groups
        return [
            BufferSpec("q", groups * self.words * self.bits, i32),
            BufferSpec("s", groups, f32),
            BufferSpec("z", groups, i32),
        ]

    def write_groups(
        self, b: KernelBuilder, row: Value, bounds: tuple[Value, Value], value_at: RowValues
    ) -> None:
        """Quantize groups `bounds` of a row whose vector at an offset is `value_at(offset, mask)`;
        a masked lane is not read, and 0."""
        with b.for_(*bounds) as loop:
            _Group(b, self, value_at, loop.iv * self.group).write(row * self.groups + loop.iv)


@dataclass(frozen=True)
class _Group:
    """One group of a row, whose columns start at `base`."""

    b: KernelBuilder
    rows: PlaneRows
    value_at: RowValues
    base: Value

    def write(self, index: Value) -> None:
        """Store the group's words, scale and sum."""
        b, rows = self.b, self.rows
        scale = self._scale()
        at = index * (rows.words * rows.bits)

        def write(word: Value, count: int, total: Value) -> Value:
            planes = self._planes(self._columns(word, count), scale, count)
            for plane, bits in enumerate(planes):
                b.buffer("q").store(bits, at + (word * rows.bits + plane))
                total = total + (b.count_bits(bits) << plane)
            return total

        ones = self._fold(b.const(0, i32), write)
        b.buffer("s").store(scale, index)
        b.buffer("z").store(ones * 2 - rows.group * (2**rows.bits - 1), index)

    def _fold(self, start: Value, step: Callable[[Value, int, Value], Value]) -> Value:
        """`step(word, columns, accumulator)` over the words of the group."""
        b, whole = self.b, self.rows.group // WORD
        with b.for_(0, whole, inits=[start]) as loop:
            loop.yield_(step(loop.iv, WORD, loop.args[0]))
        rest = self.rows.group % WORD
        return step(b.const(whole), rest, loop.results[0]) if rest else loop.results[0]

    def _columns(self, word: Value, count: int) -> Value:
        """The first `count` of 32 columns, and zeros."""
        b, lanes = self.b, self.rows.lanes
        vectors: list[Value] = []
        for offset in range(0, WORD, lanes):
            at = self.base + word * WORD + offset
            if offset + lanes <= count:
                vectors.append(self.value_at(at))
            elif offset < count:
                vectors.append(self.value_at(at, b.first_lanes(b.const(count - offset), lanes)))
            else:
                vectors.append(b.const(0.0, vec(lanes, f32)))
        while len(vectors) > 1:
            size = 2 * WORD // len(vectors)
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [b.shuffle(low, high, range(size)) for low, high in pairs]
        return vectors[0]

    def _scale(self) -> Value:
        b, rows = self.b, self.rows
        if rows.bits == 1:
            share = b.const(1 / rows.group, FLOATS)
            total = self._fold(
                b.const(0.0, FLOATS), lambda w, n, t: b.fma(b.abs(self._columns(w, n)), share, t)
            )
            return b.reduce("add", total)

        def larger(word: Value, count: int, most: Value) -> Value:
            return b.max(b.bitcast(self._columns(word, count), WORDS) & MAGNITUDE_BITS, most)

        amax = b.bitcast(b.reduce("maxsi", self._fold(b.const(0, WORDS), larger)), f32)
        return amax / float(2**rows.bits - 1)

    def _planes(self, values: Value, scale: Value, count: int) -> list[Value]:
        """The word of every plane: one i32 each."""
        if self.rows.bits == 1:
            return [self._word(values > 0.0)]
        codes = self._codes(values, scale, count)
        return [self._word((codes & (1 << j)).ne(0)) for j in range(self.rows.bits)]

    def _codes(self, values: Value, scale: Value, count: int) -> Value:
        b, bits = self.b, self.rows.bits
        quotient = values / b.broadcast(scale, WORD)
        ratio = b.select(b.broadcast(scale.eq(0.0), WORD), b.const(0.0, FLOATS), quotient)
        half = b.min(b.max(ratio * 0.5, -float(2**bits)), float(2**bits))
        codes = b.fptosi(b.unary(math.CeilOp, half)) + (2 ** (bits - 1) - 1)
        codes = b.min(b.max(codes, 0), 2**bits - 1)
        inside = [-1] * count + [0] * (WORD - count)
        return codes if count == WORD else codes & b.const(inside, WORDS)

    def _word(self, bits: Value) -> Value:
        """32 truth values as one i32."""
        return self.b.extract(self.b.bitcast(bits, vec(1, i32)), 0)


@dataclass(frozen=True)
class QuantizePlanes(RowQuantizer):
    """x f32 [n, width] -> q, s, z of PlaneRows."""

    form: PlaneRows

    @property
    def output(self) -> PlaneRows:
        """See RowQuantizer."""
        return self.form


@dataclass(frozen=True)
class RmsNormQuantizePlanes(NormQuantizer):
    """RMSNorm and q, s, z of PlaneRows."""

    form: PlaneRows
    eps: float
    offset: bool = False

    @property
    def output(self) -> PlaneRows:
        """See NormQuantizer."""
        return self.form
