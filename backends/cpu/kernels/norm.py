"""RMSNorm of rows or of heads, alone or fused with the quantization of its result.

A decode kernel (rows 1) is shared out by parts of the row: every thread finds the sum of squares
for itself, in one fixed order, and writes its own part. Prefill is shared out by rows.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial

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
SHORT = 4096
"""Columns of all rows whose norms are found before any is quantized: each is a chain of operations
that hides behind those of others, and not behind groups that wait for it."""


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
        output = self.output
        together = SHORT // output.width
        if output.rows == 1 or together < 2:
            for_each_row_part(b, output.rows, output.groups, partial(self._row_part, b))
            return b.finish()
        lo, hi = b.partition(b.n)
        with b.for_(lo, hi, together) as block:
            self._rows(b, (block.iv, b.min(block.iv + together, hi)))
        return b.finish()

    def _row_part(self, b: KernelBuilder, row: Value, bounds: tuple[Value, Value]) -> None:
        self._write(b, row, self._inverse(b, row), bounds)

    def _rows(self, b: KernelBuilder, rows: tuple[Value, Value]) -> None:
        """Some rows; what each is divided by waits where its first scale will be."""
        scales, groups = b.buffer("s"), self.output.groups
        with b.for_(*rows) as loop:
            scales.store(b.extract(self._inverse(b, loop.iv), 0), loop.iv * groups)
        with b.for_(*rows) as loop:
            inverse = b.broadcast(scales.load(loop.iv * groups), self.output.lanes)
            self._write(b, loop.iv, inverse, (b.const(0), b.const(groups)))

    def _inverse(self, b: KernelBuilder, row: Value) -> Value:
        output = self.output
        span = (row * output.width, output.width)
        return inverse_rms(b, b.buffer("x"), span, self.eps, output.lanes, self.chains)

    def _write(
        self, b: KernelBuilder, row: Value, inverse: Value, bounds: tuple[Value, Value]
    ) -> None:
        x, w, output = b.buffer("x"), b.buffer("w"), self.output
        base = row * output.width

        def value_at(offset: Value, mask: Value | None = None) -> Value:
            value = load(b, x, base + offset, output.lanes, mask) * inverse
            return apply_weight(value, load(b, w, offset, output.lanes, mask), self.offset)

        output.write_groups(b, row, bounds, value_at)


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
