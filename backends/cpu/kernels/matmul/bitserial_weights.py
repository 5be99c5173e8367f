"""Reading weights in bit planes inside a kernel, a strip of rows at a time."""

from dataclasses import dataclass

from nybble.backends.cpu.bit_planes import PlaneLayout
from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, bf16, f16, f32, i32, vec
from nybble.backends.cpu.packing import FLOAT_BYTES, TILE

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

    def word(self, block: Value, word: Value, plane: int, strip: int) -> Value:
        """32 columns of a plane in the rows of a strip, as i32 lanes."""
        offset = plane * TILE * 4 + strip * self.lanes * 4
        at = block + word * (self.layout.bits * TILE * 4) + offset
        if self.ahead and offset % _LINE == 0:
            self.buffer.prefetch(at + self.ahead)
        return self.b.bitcast(self.buffer.vload(at, self.lanes * 4), vec(self.lanes, i32))

    def scale(self, block: Value, strip: int, kind: int = 0) -> Value:
        """Scales (kind 0) or zeros (kind 1) of a strip as f32 lanes."""
        span = self.lanes * FLOAT_BYTES[self.layout.scale]
        offset = self.layout.code_bytes + kind * self.layout.scale_bytes + strip * span
        packed = self.buffer.vload(block + offset, span)
        lanes = vec(self.lanes, _TYPES[self.layout.scale])
        return self.b.to_float(self.b.bitcast(packed, lanes))
