"""What reads one part's packed weight inside a kernel, whatever holds it.

The `unpack_*` methods rewrite a block of whole groups of one tile into scratch in the order that a
product wants:

- `f32`: `[column][64 rows]`,
- `bf16`: `[sub-tile][column / 2][16 rows][2 columns]`, 32 columns being a tile of AMX.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from xdsl.dialects.builtin import i16

from nybble.backends.building.values import lanes
from nybble.backends.cpu.float_bytes import FLOAT_BYTES, FloatName
from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f16, f32, i32, vec
from nybble.backends.cpu.kernels.matmul.elements import WORDS
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TILE

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

    def unpack_bf16(self, tile: Value, first: Value, count: int, out: Buffer) -> None:
        """Columns `first .. first + count` of a tile as bf16 pairs in i32 words, for AMX."""
        with self.b.for_(0, count, self.step) as loop:
            for r in range(SUBTILES):
                for offset, values in self.columns(tile, first + loop.iv, r):
                    for i in range(0, len(values), 2):
                        pair = bf16_pair(self.b, values[i], values[i + 1])
                        at = (loop.iv + (offset + i)) * (LANES // 2) + r * count * LANES // 2
                        out.vstore(pair, at)


def floats(b: KernelBuilder, data: Value, dtype: FloatName) -> Value:
    """The f32 lanes of bytes that hold a float type.

    bf16 are widened as integers: for a machine without them LLVM may merge a conversion with what
    follows it and call a function.
    """
    count = lanes(data.type) // FLOAT_BYTES[dtype]
    if dtype == "bf16":
        halves = b.zext(b.bitcast(data, vec(count, i16)), i32)
        return b.bitcast(halves << 16, vec(count, f32))
    return b.to_float(b.bitcast(data, vec(count, f16 if dtype == "f16" else f32)))


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
