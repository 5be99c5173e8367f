"""Reading packed weights inside a kernel: vectors of codes, scales and decoded columns.

`WeightReader` addresses one part's packed bytes. Its `unpack_*` methods rewrite a block of whole
groups of one tile into scratch in the order that a product wants:

- `u8`: `[column / 4][sub-tile][16 rows][4 columns]` bytes, the operand of integer dot products,
- `f32`: `[column][64 rows]`,
- `bf16`: `[sub-tile][column / 2][16 rows][2 columns]`, 32 columns being a tile of AMX.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import (
    KernelBuilder,
    Value,
    bf16,
    f16,
    f32,
    i8,
    i32,
    vec,
)
from nybble.backends.cpu.kernels.matmul.spec import Codes, MatmulSpec
from nybble.backends.cpu.packing import FLOAT_BYTES, LANES, TILE, DenseLayout, TileLayout

SUBTILES = TILE // LANES
WORDS = vec(LANES, i32)
FLOATS = vec(LANES, f32)
_TYPES = {"f32": f32, "f16": f16, "bf16": bf16}
UNROLL_COLUMNS = 32
_SELECT = 0xCA
"""Truth table of `a ? b : c`, bit by bit."""


class WeightReader(ABC):
    """One part's packed weight. `step`: columns that one round of an unpacking loop covers."""

    step: int

    def __init__(self, b: KernelBuilder, buffer: Buffer):
        self.b = b
        self.w = buffer

    @abstractmethod
    def columns(self, tile: Value, first: Value, subtile: int) -> Iterator[tuple[int, list[Value]]]:
        """Decoded columns `first .. first + step` of a sub-tile, a few at a time.

        `first` is a multiple of `step`. Yields the offset from `first` and f32 lanes per column.
        """

    def unpack_f32(self, tile: Value, first: Value, count: int, out: Buffer) -> None:
        """Columns `first .. first + count` of a tile as f32 [column][64 rows]."""
        with self.b.for_(0, count, self.step) as loop:
            for r in range(SUBTILES):
                for offset, values in self.columns(tile, first + loop.iv, r):
                    for i, value in enumerate(values):
                        at = (loop.iv + (offset + i)) * TILE + r * LANES
                        out.vstore(value, at)

    def rough_columns(
        self, tile: Value, first: Value, subtile: int
    ) -> Iterator[tuple[int, list[Value]]]:
        """Like `columns`, to the precision that bf16 needs."""
        return self.columns(tile, first, subtile)

    def unpack_bf16(self, tile: Value, first: Value, count: int, out: Buffer) -> None:
        """Columns `first .. first + count` of a tile as bf16 pairs in i32 words, for AMX."""
        with self.b.for_(0, count, self.step) as loop:
            for r in range(SUBTILES):
                for offset, values in self.rough_columns(tile, first + loop.iv, r):
                    for i in range(0, len(values), 2):
                        pair = bf16_pair(self.b, values[i], values[i + 1])
                        at = (loop.iv + (offset + i)) * (LANES // 2) + r * count * LANES // 2
                        out.vstore(pair, at)


class CodeReader(WeightReader):
    """A weight in a TileLayout.

    ahead: bytes between a line that is read and the one that is prefetched; 0 for no prefetch.
    """

    def __init__(
        self, b: KernelBuilder, buffer: Buffer, layout: TileLayout, zero_point: int, ahead: int
    ):
        super().__init__(b, buffer)
        self.layout = layout
        self.zero_point = zero_point
        self.step = divisor(layout.group, UNROLL_COLUMNS, 4 * layout.planes)
        self.ahead = ahead

    def block(self, tile: Value, group: Value) -> Value:
        """Byte where a group of a tile starts."""
        return tile * self.layout.tile_bytes + group * self.layout.block_bytes

    def word(self, block: Value, vector: int, subtile: int) -> Value:
        """A packed vector of a sub-tile as i32 lanes, one per row."""
        return self.b.bitcast(self._load(block, (vector * SUBTILES + subtile) * 64, 64), WORDS)

    def scale(self, block: Value, subtile: int, kind: int = 0) -> Value:
        """Scales (kind 0) or zeros (kind 1) of a sub-tile as f32 lanes."""
        span = LANES * FLOAT_BYTES[self.layout.scale]
        offset = self.layout.code_bytes + (kind * SUBTILES + subtile) * span
        lanes = vec(LANES, _TYPES[self.layout.scale])
        return self.b.to_float(self.b.bitcast(self._load(block, offset, span), lanes))

    def _load(self, block: Value, offset: int, size: int) -> Value:
        if self.ahead and offset % 64 == 0:
            self.w.prefetch(block + (offset + self.ahead))
        return self.w.vload(block + offset, size)

    def columns(self, tile: Value, first: Value, subtile: int) -> Iterator[tuple[int, list[Value]]]:
        """See WeightReader: `S * (c - zero_point) + Z`, with one rounding after the product."""
        b, layout = self.b, self.layout
        block = self.block(tile, first // layout.group)
        scale = self.scale(block, subtile)
        zero = self.scale(block, subtile, 1) if layout.has_zero else None
        codes = self._codes(block, first)
        for v in range(self.step // (4 * layout.planes)):
            word = self.word(codes, v, subtile)
            for p in range(layout.planes):
                values = [self._code(word, 8 * j + p * layout.width) for j in range(4)]
                if zero is None:
                    decoded = [scale * value for value in values]
                else:
                    decoded = [b.fma(scale, value, zero) for value in values]
                yield (v * layout.planes + p) * 4, decoded

    def _code(self, word: Value, bit: int) -> Value:
        """T(code) of the column at a bit of the lanes."""
        codes = word.shr(bit) if bit else word
        if bit + self.layout.width < 32:
            codes = codes & (2**self.layout.width - 1)
        if self.zero_point:
            codes = codes - self.zero_point
        return self.b.sitofp(codes)

    def rough_columns(
        self, tile: Value, first: Value, subtile: int
    ) -> Iterator[tuple[int, list[Value]]]:
        """See WeightReader: within 2e-5 S of `columns`; NaN where S is not finite.

        A code put at the top of the mantissa of 1.0 is `1 + c / 2**width`, without a conversion.
        """
        b, layout = self.b, self.layout
        block = self.block(tile, first // layout.group)
        scale = self.scale(block, subtile)
        shift = scale * -float(self.zero_point + 2**layout.width)
        if layout.has_zero:
            shift = shift + self.scale(block, subtile, 1)
        steep = scale * float(2**layout.width)
        codes = self._codes(block, first)
        for v in range(self.step // (4 * layout.planes)):
            word = self.word(codes, v, subtile)
            for p in range(layout.planes):
                mantissas = [self._mantissa(word, 8 * j + p * layout.width) for j in range(4)]
                values = [b.fma(steep, b.bitcast(m, FLOATS), shift) for m in mantissas]
                yield (v * layout.planes + p) * 4, values

    def _mantissa(self, word: Value, bit: int) -> Value:
        """The bits of `1 + c / 2**width` for the column at a bit of the lanes."""
        place = 23 - self.layout.width
        moved = word.shr(bit - place) if bit > place else word << (place - bit)
        return (moved & (2**self.layout.width - 1) << place) | 0x3F800000

    def unpack_u8(self, tile: Value, first: Value, count: int, out: Buffer) -> None:
        """Codes of columns `first .. first + count` of a tile as bytes."""
        b, layout = self.b, self.layout
        with b.for_(0, count, self.step) as loop:
            at = first + loop.iv
            codes = self._codes(self.block(tile, at // layout.group), at)
            for v in range(self.step // (4 * layout.planes)):
                for r in range(SUBTILES):
                    word = self.word(codes, v, r)
                    for p in range(layout.planes):
                        column = loop.iv + (v * layout.planes + p) * 4
                        plane = b.bitcast(self._plane(word, p), vec(64, i8))
                        out.vstore(plane, column * TILE + r * 64)

    def _codes(self, block: Value, column: Value) -> Value:
        """Byte where the codes from a column (a multiple of `step`) on start."""
        layout = self.layout
        if self.step == layout.group:
            return block
        return block + column % layout.group // (4 * layout.planes) * (SUBTILES * 64)

    def _plane(self, word: Value, plane: int) -> Value:
        """The codes of a plane, one per byte."""
        if self.layout.planes == 1:
            return word
        shifted = word.shr(plane * self.layout.width) if plane else word
        return shifted & (0x01010101 * (2**self.layout.width - 1))


class DenseReader(WeightReader):
    """A weight in a DenseLayout."""

    def __init__(self, b: KernelBuilder, buffer: Buffer, layout: DenseLayout):
        super().__init__(b, buffer)
        self.layout = layout
        self.step = next(step for step in (8, 4, 2, 1) if layout.cols % step == 0)

    def columns(self, tile: Value, first: Value, subtile: int) -> Iterator[tuple[int, list[Value]]]:
        """See WeightReader."""
        b, layout = self.b, self.layout
        width = FLOAT_BYTES[layout.dtype]
        base = tile * layout.tile_bytes + first * (TILE * width)
        values: list[Value] = []
        for k in range(self.step):
            packed = self.w.vload(base + (k * TILE + subtile * LANES) * width, LANES * width)
            values.append(b.to_float(b.bitcast(packed, vec(LANES, _TYPES[layout.dtype]))))
        yield 0, values


def divisor(total: int, most: int, step: int = 1) -> int:
    """The largest divisor of `total` that is a multiple of `step` and at most max(most, step)."""
    counts = range(max(most // step, 1), 0, -1)
    return step * next(n for n in counts if total % (n * step) == 0)


def bf16_pair(b: KernelBuilder, low: Value, high: Value) -> Value:
    """i32 lanes with bf16 of `low` in the low half and of `high` in the high half.

    Rounded to nearest, ties away from zero. For AVX-512: `vpternlogd` merges the halves, where
    LLVM would make a two-source permutation of three micro-operations out of shifts and masks.
    """
    half = 0x8000
    lows = (b.bitcast(low, WORDS) + half).shr(16)
    highs = b.bitcast(high, WORDS) + half
    operands = (b.const(-0x10000, WORDS), highs, lows, b.immediate(_SELECT, i32))
    return b.intrinsic("llvm.x86.avx512.pternlog.d.512", operands, WORDS)


def reader(b: KernelBuilder, spec: MatmulSpec, part: int, columns: int = 0) -> WeightReader:
    """The reader of a part's weight; it prefetches what lies `columns` ahead (0: nothing)."""
    layout = spec.layouts[part]
    buffer = b.buffer(f"w{part}")
    if isinstance(layout, DenseLayout):
        return DenseReader(b, buffer, layout)
    assert isinstance(spec.weight, Codes)
    ahead = columns // layout.group * layout.block_bytes
    return CodeReader(b, buffer, layout, spec.weight.zero_point, ahead)
