"""Lookup tables of quantized activations, alone or fused with the quantization before them.

A table of four columns is 16 bytes for each digit of its entries. Those of 16 columns lie together,
digit by digit: `[token][column / 16][digit][4 tables][16 entries]`, so that a 64-byte vector holds
four tables. Exact entries, -508 .. 508, take two digits of 5 bits after adding 512: eight of them
sum up in a byte. Rounded entries take one digit of 8 bits, after adding 128.

The arithmetic is that of `dialects.numpy_ref.lookup` step by step, so the tables are equal bit for
bit. A symmetric table is written in full, since shuffles read 16 entries.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import i16
from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import (
    Buffer,
    BufferSpec,
    KernelBuilder,
    Value,
    f32,
    i8,
    i32,
    vec,
)
from nybble.backends.cpu.kernels.loops import for_each_row_part, padded_rows
from nybble.backends.cpu.kernels.mathlib import round_to_int
from nybble.backends.cpu.kernels.norm import RmsNormQuantize
from nybble.backends.cpu.kernels.quantize import Quantize, QuantizedRows, check_group
from nybble.dialects.numpy_ref.lookup import LARGEST_ENTRY, WIDTH

ENTRIES = 2**WIDTH
TOGETHER = 4
"""Tables of a vector."""
VECTOR = TOGETHER * ENTRIES
WORDS = vec(ENTRIES, i16)


@dataclass(frozen=True)
class Entries:
    """How entries are stored: `digits` of `bits` bits each, the lowest first, after `bias`."""

    digits: int
    bits: int
    bias: int


EXACT = Entries(digits=2, bits=5, bias=512)
ROUNDED = Entries(digits=1, bits=8, bias=128)


@dataclass(frozen=True)
class TableRows:
    """Output rows: t i8 as in the module's text, s f32 and z i32 [rows, width / group].

    With rounded entries also u f32 [rows, width / group], what a step of an entry is worth.
    """

    width: int
    rows: int
    group: int
    exact: bool = True
    symmetric: bool = False

    def __post_init__(self) -> None:
        check_group(self.width, self.group, TOGETHER * WIDTH)

    @property
    def entries(self) -> Entries:
        """How entries are stored."""
        return EXACT if self.exact else ROUNDED

    @property
    def groups(self) -> int:
        """Groups in a row."""
        return self.width // self.group

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's tables."""
        return self.width // WIDTH * ENTRIES * self.entries.digits

    @property
    def buffers(self) -> list[BufferSpec]:
        """t, s, z, and u with rounded entries."""
        rows = padded_rows(self.rows)
        facts = [
            BufferSpec("s", rows * self.groups, f32),
            BufferSpec("z", rows * self.groups, i32),
            BufferSpec("u", rows * self.groups, f32),
        ]
        return [BufferSpec("t", rows * self.row_bytes, i8), *facts[: 2 if self.exact else 3]]

    def write_group(self, b: KernelBuilder, row: Value, group: Value, q: Buffer) -> None:
        """Write the tables of a group of the integers `q`, i8, and their unit if rounded."""
        first = row * self.width + group * self.group
        steps: Value | None = None
        if not self.exact:
            largest = self._largest(b, q, first)
            steps = b.const(float(LARGEST_ENTRY), f32) / b.max(b.const(1.0, f32), largest)
            unit = largest / float(LARGEST_ENTRY)
            b.buffer("u").store(unit, row * self.groups + group)
            steps = b.broadcast(steps, ENTRIES)
        with b.for_(0, self.group, TOGETHER * WIDTH) as four:
            column = group * self.group + four.iv
            place = row * self.row_bytes + column * (ENTRIES // WIDTH * self.entries.digits)
            for i in range(TOGETHER):
                sums = self._sums(b, q, first + four.iv + i * WIDTH)
                for digit, value in enumerate(self._digits(b, sums, steps)):
                    b.buffer("t").vstore(value, place + digit * VECTOR + i * ENTRIES)

    def _sums(self, b: KernelBuilder, q: Buffer, at: Value) -> Value:
        """i16 entries of the table of four columns."""
        total: Value | None = None
        for j in range(WIDTH):
            set_ = (np.arange(ENTRIES) >> j & 1).tolist()
            taken = [2 * bit - 1 for bit in set_] if self.symmetric else set_
            column = b.broadcast(b.sext(q.load(at + j), i16), ENTRIES)
            part = column * b.const(taken, WORDS)
            total = part if total is None else total + part
        assert total is not None
        return total

    def _largest(self, b: KernelBuilder, q: Buffer, first: Value) -> Value:
        """The largest magnitude of the entries of a group's tables, f32."""
        with b.for_(0, self.group, WIDTH, inits=[b.const(0, WORDS)]) as loop:
            sums = self._sums(b, q, first + loop.iv)
            loop.yield_(b.max(b.max(loop.args[0], sums), -sums))
        return b.sitofp(b.sext(b.reduce("maxsi", loop.results[0]), i32))

    def _digits(self, b: KernelBuilder, sums: Value, steps: Value | None) -> list[Value]:
        """The bytes of each digit of a table."""
        entries = self.entries
        if steps is not None:
            scaled = b.sitofp(b.sext(sums, i32)) * steps
            return [b.trunc(round_to_int(b, scaled) + entries.bias, i8)]
        biased = sums + entries.bias
        low = biased & (2**entries.bits - 1)
        return [b.trunc(low, i8), b.trunc(biased.shr(entries.bits), i8)]


@dataclass(frozen=True)
class QuantizedTables(QuantizedRows):
    """Quantized rows with their tables: q, s, z, then t (and u) of a TableRows."""

    exact: bool = True
    symmetric: bool = False

    @property
    def tables(self) -> TableRows:
        """The tables."""
        return TableRows(self.width, self.rows, self.group, self.exact, self.symmetric)

    @property
    def buffers(self) -> list[BufferSpec]:
        """q, s, z, t, and u with rounded entries."""
        tables = {buffer.name: buffer for buffer in self.tables.buffers}
        return [*super().buffers, *(tables[name] for name in ("t", "u") if name in tables)]

    def write_groups(
        self,
        b: KernelBuilder,
        row: Value,
        bounds: tuple[Value, Value],
        value_at: Callable[[Value], Value],
    ) -> None:
        """See QuantizedRows; then the tables of what was written."""
        super().write_groups(b, row, bounds, value_at)
        with b.for_(*bounds) as loop:
            self.tables.write_group(b, row, loop.iv, b.buffer("q"))


@dataclass(frozen=True)
class QuantizeTables(Quantize):
    """x f32 [n, width] -> q, s, z, t (, u)."""

    exact: bool = True
    symmetric: bool = False

    @property
    def output(self) -> QuantizedTables:
        """The layout written."""
        return QuantizedTables(
            self.width, self.rows, self.group, self.lanes, 1, self.exact, self.symmetric
        )


@dataclass(frozen=True)
class RmsNormQuantizeTables(RmsNormQuantize):
    """x f32 [n, width], w f32 [width] -> q, s, z, t (, u)."""

    exact: bool = True
    symmetric: bool = False

    @property
    def output(self) -> QuantizedTables:
        """The layout written."""
        return QuantizedTables(
            self.width, self.rows, self.group, self.lanes, 1, self.exact, self.symmetric
        )


@dataclass(frozen=True)
class BuildTables:
    """q i8 [n, width], its scales qs and sums qz -> t, s, z (, u): the tables of an activation."""

    output: TableRows

    @property
    def buffers(self) -> list[BufferSpec]:
        """q, qs, qz, then the output's."""
        rows, output = padded_rows(self.output.rows), self.output
        return [
            BufferSpec("q", rows * output.width, i8),
            BufferSpec("qs", rows * output.groups, f32),
            BufferSpec("qz", rows * output.groups, i32),
            *output.buffers,
        ]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        output = self.output

        def row_part(row: Value, bounds: tuple[Value, Value]) -> None:
            with b.for_(*bounds) as loop:
                at = row * output.groups + loop.iv
                for source, target in (("qs", "s"), ("qz", "z")):
                    b.buffer(target).store(b.buffer(source).load(at), at)
                output.write_group(b, row, loop.iv, b.buffer("q"))

        for_each_row_part(b, output.rows, output.groups, row_part)
        return b.finish()
