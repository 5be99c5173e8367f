"""Elementwise steps on activation rows: gated linear unit, residual sum."""

from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f32
from nybble.backends.cpu.kernels.gates import GATES
from nybble.backends.cpu.kernels.loops import for_each_vector, load, padded_rows, store


def _elements(b: KernelBuilder, rows: int, width: int) -> Value:
    return b.const(width) if rows == 1 else b.n * width


@dataclass(frozen=True)
class Glu:
    """gate, up f32 [n, width] -> out = activation(gate) * up; out may be either input."""

    width: int
    rows: int
    activation: str = "silu"
    lanes: int = 16

    def __post_init__(self) -> None:
        if self.activation not in GATES:
            known = ", ".join(GATES)
            raise ValueError(f"activation '{self.activation}' is not one of {known}")

    @property
    def buffers(self) -> list[BufferSpec]:
        """gate, up, out."""
        size = padded_rows(self.rows) * self.width
        return [BufferSpec(name, size, f32) for name in ("gate", "up", "out")]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        gate, up, out = b.buffers

        def body(at: Value, mask: Value | None) -> None:
            value = GATES[self.activation](b, load(b, gate, at, self.lanes, mask))
            store(out, value * load(b, up, at, self.lanes, mask), at, mask)

        for_each_vector(b, _elements(b, self.rows, self.width), self.lanes, body)
        return b.finish()


@dataclass(frozen=True)
class Add:
    """x, y f32 [n, width] -> out = x + y, the residual sum; out may be either input."""

    width: int
    rows: int
    lanes: int = 16

    @property
    def buffers(self) -> list[BufferSpec]:
        """x, y, out."""
        size = padded_rows(self.rows) * self.width
        return [BufferSpec(name, size, f32) for name in ("x", "y", "out")]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        x, y, out = b.buffers

        def body(at: Value, mask: Value | None) -> None:
            total = load(b, x, at, self.lanes, mask) + load(b, y, at, self.lanes, mask)
            store(out, total, at, mask)

        for_each_vector(b, _elements(b, self.rows, self.width), self.lanes, body)
        return b.finish()
