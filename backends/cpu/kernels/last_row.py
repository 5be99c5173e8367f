"""Copy of the last token's row."""

from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f32
from nybble.backends.cpu.kernels.loops import for_each_vector, load, padded_rows, store


@dataclass(frozen=True)
class LastRow:
    """x f32 [n, width] -> out f32 [width], row n - 1 of x."""

    width: int
    rows: int
    lanes: int = 16

    @property
    def buffers(self) -> list[BufferSpec]:
        """x, out."""
        size = padded_rows(self.rows) * self.width
        return [BufferSpec("x", size, f32), BufferSpec("out", self.width, f32)]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        x, out = b.buffers
        start = b.const(0) if self.rows == 1 else (b.n - 1) * self.width

        def copy(at: Value, mask: Value | None) -> None:
            store(out, load(b, x, start + at, self.lanes, mask), at, mask)

        for_each_vector(b, b.const(self.width), self.lanes, copy)
        return b.finish()
