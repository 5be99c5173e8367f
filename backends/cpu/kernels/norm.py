"""RMSNorm of rows or of heads, alone or fused with the quantization of its result.

A decode kernel (rows 1) is shared out by parts of the row: every thread finds the sum of squares
for itself, in one fixed order, and writes its own part. Prefill is shared out by rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import (
    Buffer,
    BufferSpec,
    KernelBuilder,
    Operand,
    Value,
    f32,
)
from nybble.backends.cpu.kernels.loops import (
    fold_vectors,
    for_each_row_part,
    load,
    padded_rows,
    store,
    tree,
)
from nybble.backends.cpu.kernels.quantize import QuantizedRows, RowsOutput

CHAINS = 4
"""Sums that squares are added to in turn, by default."""


def inverse_rms(
    b: KernelBuilder,
    x: Buffer,
    span: tuple[Value, int],
    eps: float,
    lanes: int,
    chains: int = CHAINS,
) -> Value:
    """1 / sqrt(mean(x^2) + eps) of x[base : base + width], in every lane of a vector.

    span: base and width. chains: sums that squares are added to in turn.
    """
    base, width = span

    def square(total: Value, offset: Value, mask: Value | None) -> Value:
        value = load(b, x, base + offset, lanes, mask)
        return b.fma(value, value, total)

    partial = fold_vectors(b, width, lanes, 0.0, square, chains)
    total = b.reduce("add", tree(partial, lambda p, q: p + q))
    inverse = 1.0 / b.sqrt(b.fma(total, b.const(1.0 / width, f32), b.const(eps, f32)))
    return b.broadcast(inverse, lanes)


def apply_weight(x: Value, weight: Value, offset: bool) -> Value:
    """x * weight, or x * (1 + weight) with `offset` (gemma)."""
    return x * (weight + 1.0) if offset else x * weight


@dataclass(frozen=True)
class RmsNorm:
    """x f32 [n, heads * width], w f32 [width] -> out f32 like x; every head on its own.

    chains: see `inverse_rms`.
    """

    width: int
    rows: int
    eps: float
    heads: int = 1
    offset: bool = False
    lanes: int = 16
    chains: int = CHAINS

    @property
    def buffers(self) -> list[BufferSpec]:
        """x, w, out; x and out may be one buffer."""
        size = padded_rows(self.rows) * self.heads * self.width
        return [
            BufferSpec("x", size, f32),
            BufferSpec("w", self.width, f32),
            BufferSpec("out", size, f32),
        ]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        if self.rows == 1 and self.heads == 1:
            self._row(b, b.const(0), b.partition(-(-self.width // self.lanes)))
            return b.finish()
        lo, hi = b.partition(self.heads if self.rows == 1 else b.n * self.heads)
        with b.for_(lo, hi) as loop:
            every = (b.const(0), b.const(-(-self.width // self.lanes)))
            self._row(b, loop.iv * self.width, every)
        return b.finish()

    def _row(self, b: KernelBuilder, base: Value, parts: tuple[Value, Value]) -> None:
        x, w, out = b.buffers
        inverse = inverse_rms(b, x, (base, self.width), self.eps, self.lanes, self.chains)

        def write(offset: Operand, mask: Value | None) -> None:
            value = load(b, x, base + offset, self.lanes, mask) * inverse
            value = apply_weight(value, load(b, w, offset, self.lanes, mask), self.offset)
            store(out, value, base + offset, mask)

        lo, hi = parts
        whole = self.width // self.lanes
        with b.for_(lo, hi if whole * self.lanes == self.width else b.min(hi, whole)) as loop:
            write(loop.iv * self.lanes, None)
        if self.width % self.lanes:
            with b.if_(hi > whole), b.if_(lo <= whole):
                mask = b.first_lanes(b.const(self.width % self.lanes), self.lanes)
                write(b.const(whole * self.lanes), mask)


class NormQuantizer(ABC):
    """x f32 [n, width], w f32 [width] -> quantized rows: RMSNorm, then quantization, in one pass.

    eps, offset, chains: see RmsNorm.
    """

    eps: float
    offset: bool
    chains: int = CHAINS

    @property
    @abstractmethod
    def output(self) -> RowsOutput:
        """What is written."""

    @property
    def buffers(self) -> list[BufferSpec]:
        """x, w, then those of the output."""
        output = self.output
        x = BufferSpec("x", padded_rows(output.rows) * output.width, f32)
        return [x, BufferSpec("w", output.width, f32), *output.buffers]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        for_each_row_part(b, self.output.rows, self.output.groups, self._row_part(b))
        return b.finish()

    def _row_part(self, b: KernelBuilder) -> Callable[[Value, tuple[Value, Value]], None]:
        x, w, output = b.buffer("x"), b.buffer("w"), self.output

        def row_part(row: Value, bounds: tuple[Value, Value]) -> None:
            base = row * output.width
            span = (base, output.width)
            inverse = inverse_rms(b, x, span, self.eps, output.lanes, self.chains)

            def value_at(offset: Value, mask: Value | None = None) -> Value:
                value = load(b, x, base + offset, output.lanes, mask) * inverse
                return apply_weight(value, load(b, w, offset, output.lanes, mask), self.offset)

            output.write_groups(b, row, bounds, value_at)

        return row_part


@dataclass(frozen=True)
class RmsNormQuantize(NormQuantizer):
    """RMSNorm and q, s, z of QuantizedRows."""

    width: int
    rows: int
    eps: float
    group: int = 32
    offset: bool = False
    lanes: int = 16
    digits: int = 1
    chains: int = CHAINS

    @property
    def output(self) -> QuantizedRows:
        """See NormQuantizer."""
        return QuantizedRows(self.width, self.rows, self.group, self.lanes, self.digits)
