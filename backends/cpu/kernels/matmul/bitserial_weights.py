"""Reading weights in bit planes inside a kernel, a strip of rows at a time."""

from dataclasses import dataclass

from nybble.backends.cpu.bit_planes import PlaneLayout
from nybble.backends.cpu.float_bytes import FLOAT_BYTES
from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, bf16, f16, f32, i32, vec
from nybble.backends.cpu.tile_layout import TILE

_TYPES = {"f32": f32, "f16": f16, "bf16": bf16}
_LINE = 64


@dataclass(frozen=True)
class PlaneReader:
    """One part's packed planes.

    lanes: rows of a strip. ahead: bytes between a line that is read and the one that is
    prefetched; 0 for no prefetch.
    """

    b: KernelBuilder
    buffer: Buffer
    layout: PlaneLayout
    lanes: int
    ahead: int

    def block(self, tile: Value, group: Value) -> Value:
        """Byte where a group of a tile starts."""
        return tile * self.layout.tile_bytes + group * self.layout.block_bytes

    def word(self, block: Value, word: Value, plane: int, row: Value | int, strip: int) -> Value:
        """32 columns of a plane in the rows of the strip, counted from a row, as i32 lanes."""
        offset = strip * self.lanes * 4
        at = block + (word * self.layout.bits + plane) * (TILE * 4) + self.b.value(row) * 4 + offset
        if self.ahead and offset % _LINE == 0:
            self.buffer.prefetch(at + self.ahead)
        return self.b.bitcast(self.buffer.vload(at, self.lanes * 4), vec(self.lanes, i32))

    def scale(self, block: Value, row: Value | int, kind: int = 0) -> Value:
        """Scales (kind 0) or zeros (kind 1) of the strip from a row on, as f32 lanes."""
        width = FLOAT_BYTES[self.layout.scale]
        offset = self.layout.code_bytes + kind * self.layout.scale_bytes
        packed = self.buffer.vload(block + offset + self.b.value(row) * width, self.lanes * width)
        lanes = vec(self.lanes, _TYPES[self.layout.scale])
        return self.b.to_float(self.b.bitcast(packed, lanes))
