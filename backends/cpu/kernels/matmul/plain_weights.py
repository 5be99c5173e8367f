"""Reading packed floats inside a kernel: as they are, and lossless bf16 of 12 bits."""

from collections.abc import Iterator

from nybble.backends.cpu.float_bytes import FLOAT_BYTES
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value
from nybble.backends.cpu.kernels.matmul.elements import FLOATS, WORDS, looked_up
from nybble.backends.cpu.kernels.matmul.weight_reader import WeightReader, floats
from nybble.backends.cpu.split_floats import STEP, STEP_BYTES, SplitLayout
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TILE, VECTOR, DenseLayout

_EVEN = 0x00FF00FF
"""Bytes 0 and 2 of a word."""


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
            values.append(floats(b, packed, layout.dtype))
        yield 0, values


class SplitReader(WeightReader):
    """A weight in a SplitLayout."""

    step = STEP

    def __init__(self, b: KernelBuilder, buffer: Buffer, layout: SplitLayout, isa: Isa):
        super().__init__(b, buffer)
        self.layout = layout
        self.permute = isa.byte_shuffle

    def columns(self, tile: Value, first: Value, subtile: int) -> Iterator[tuple[int, list[Value]]]:
        """See WeightReader."""
        start = tile * self.layout.tile_bytes
        table = self.w.vload(start, self.permute.lanes)
        at = start + (first // STEP * STEP_BYTES + (VECTOR + subtile * VECTOR))
        packed = self._words(at + 2 * SUBTILES * VECTOR)
        for half in range(2):
            low = self._words(at + half * SUBTILES * VECTOR)
            codes = (packed.shr(4) if half else packed) & 0x0F0F0F0F
            high = self.b.bitcast(looked_up(self.b, self.permute, table, codes), WORDS)
            yield 4 * half, self._joined(low, high)

    def _words(self, at: Value) -> Value:
        return self.b.bitcast(self.w.vload(at, VECTOR), WORDS)

    def _joined(self, low: Value, high: Value) -> list[Value]:
        """Four columns of f32 lanes out of the low and high bytes of their bf16."""
        even = (low & _EVEN) | (high << 8) & ~_EVEN
        odd = (low.shr(8) & _EVEN) | (high & ~_EVEN)
        halves = (even << 16, odd << 16, even & -0x10000, odd & -0x10000)
        return [self.b.bitcast(half, FLOATS) for half in halves]
