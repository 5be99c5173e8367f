"""Quantization of f32 activation rows to one or two 8-bit digits with one scale per group.

The arithmetic is that of `dialects.numpy_ref.quantize` step by step, so the codes are equal bit for
bit: amax is found on the bit patterns (integer order is magnitude order, and a NaN is largest).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from xdsl.dialects.func import FuncOp

from nybble.backends.building.values import with_element
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f32, i8, i32
from nybble.backends.cpu.kernels.loops import (
    for_each_few,
    for_each_row_part,
    load,
    padded_rows,
    tree,
)
from nybble.backends.cpu.kernels.mathlib import round_to_int
from nybble.dialects.numpy_ref.quantize import GROUPS, LARGEST, SMALLEST_AMAX

MAGNITUDE_BITS = 0x7FFFFFFF
KEPT = 8
"""Vectors of groups that are quantized side by side."""


class RowValues(Protocol):
    """The vector of a row at an offset; lanes that the mask leaves out are not read, and 0."""

    def __call__(self, offset: Value, mask: Value | None = None) -> Value:
        """f32 lanes."""
        ...


class RowsOutput(Protocol):
    """A form of quantized rows [rows, width]: its buffers, and how a part of a row is written."""

    @property
    def width(self) -> int:
        """Columns."""
        ...

    @property
    def rows(self) -> int:
        """Rows, at most."""
        ...

    @property
    def lanes(self) -> int:
        """Lanes of the vectors that it takes."""
        ...

    @property
    def groups(self) -> int:
        """Groups in a row."""
        ...

    @property
    def buffers(self) -> list[BufferSpec]:
        """What it writes; "s" are scales, f32 [rows, groups]."""
        ...

    def write_groups(
        self, b: KernelBuilder, row: Value, bounds: tuple[Value, Value], value_at: RowValues
    ) -> None:
        """Emit: quantize the groups `bounds` of a row."""
        ...


def check_group(width: int, group: int, lanes: int) -> None:
    """Raise ValueError unless rows of `width` split into groups that the kernels handle."""
    if group not in GROUPS or group % lanes:
        raise ValueError(f"group size {group} is not one of {', '.join(map(str, GROUPS))}")
    if width % group:
        raise ValueError(f"row length {width} is not a multiple of the group size {group}")


@dataclass(frozen=True)
class QuantizedRows:
    """Output rows: q i8 [digits, rows, width], s f32 and z i32 [rows, width / group].

    rows are padded; with two digits an integer is 256 * q[0] + q[1].
    """

    width: int
    rows: int
    group: int
    lanes: int = 16
    digits: int = 1

    def __post_init__(self) -> None:
        check_group(self.width, self.group, self.lanes)
        if self.digits not in LARGEST:
            raise ValueError(f"{self.digits} digits are none of {', '.join(map(str, LARGEST))}")

    @property
    def groups(self) -> int:
        """Groups in a row."""
        return self.width // self.group

    @property
    def plane(self) -> int:
        """Elements of q that hold one digit."""
        return padded_rows(self.rows) * self.width

    @property
    def buffers(self) -> list[BufferSpec]:
        """q, s, z."""
        rows = padded_rows(self.rows)
        return [
            BufferSpec("q", self.digits * self.plane, i8),
            BufferSpec("s", rows * self.groups, f32),
            BufferSpec("z", rows * self.groups, i32),
        ]

    def _write(
        self, b: KernelBuilder, row: Value, groups: list[Value], every: list[list[Value]]
    ) -> None:
        """Quantize the vectors of some groups and store their codes, scales and sums.

        A group is one long chain of operations, so those of the others come in between.
        """
        nothing, largest = b.const(0.0, f32), float(LARGEST[self.digits])
        amaxes = [largest_magnitude(b, values) for values in every]
        tiny = [amax < float(SMALLEST_AMAX) for amax in amaxes]
        scales = [
            b.select(none, nothing, amax / largest) for none, amax in zip(tiny, amaxes, strict=True)
        ]
        factors = [
            b.broadcast(b.select(none, nothing, largest / amax), self.lanes)
            for none, amax in zip(tiny, amaxes, strict=True)
        ]
        integers = [
            [round_to_int(b, value * factor) for value in values]
            for values, factor in zip(every, factors, strict=True)
        ]
        for group, own in zip(groups, integers, strict=True):
            for i, integer in enumerate(own):
                at = row * self.width + group * self.group + i * self.lanes
                self._write_digits(b, integer, at)
        for group, own, scale in zip(groups, integers, scales, strict=True):
            at = row * self.groups + group
            b.buffer("s").store(scale, at)
            b.buffer("z").store(b.reduce("add", tree(own, lambda x, y: x + y)), at)

    def _write_digits(self, b: KernelBuilder, integer: Value, at: Value) -> None:
        if self.digits == 1:
            b.buffer("q").vstore(b.trunc(integer, i8), at)
            return
        high = (integer + 128) >> 8
        b.buffer("q").vstore(b.trunc(high, i8), at)
        b.buffer("q").vstore(b.trunc(integer - high * 256, i8), at + self.plane)

    def write_groups(
        self,
        b: KernelBuilder,
        row: Value,
        bounds: tuple[Value, Value],
        value_at: Callable[[Value], Value],
    ) -> None:
        """Quantize groups `bounds` of a row whose vector at an offset is `value_at(offset)`."""
        offsets = range(0, self.group, self.lanes)

        def write(groups: list[Value]) -> None:
            starts = [group * self.group for group in groups]
            every = [[value_at(start + offset) for offset in offsets] for start in starts]
            self._write(b, row, groups, every)

        for_each_few(b, bounds, max(1, KEPT // len(offsets)), write)


def largest_magnitude(b: KernelBuilder, values: list[Value]) -> Value:
    """The largest |x| of f32 vectors as an f32 scalar; a NaN wins over every number."""
    integers = [b.bitcast(v, with_element(v.type, i32)) & MAGNITUDE_BITS for v in values]
    return b.bitcast(b.reduce("maxsi", tree(integers, b.max)), f32)


class RowQuantizer(ABC):
    """x f32 [n, width] -> quantized rows.

    Decode (rows 1) is shared out by groups, prefill by rows.
    """

    @property
    @abstractmethod
    def output(self) -> RowsOutput:
        """What is written."""

    @property
    def buffers(self) -> list[BufferSpec]:
        """x, then those of the output."""
        output = self.output
        x = BufferSpec("x", padded_rows(output.rows) * output.width, f32)
        return [x, *output.buffers]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        output, x = self.output, b.buffer("x")

        def row_part(row: Value, bounds: tuple[Value, Value]) -> None:
            def value_at(offset: Value, mask: Value | None = None) -> Value:
                return load(b, x, row * output.width + offset, output.lanes, mask)

            output.write_groups(b, row, bounds, value_at)

        for_each_row_part(b, output.rows, output.groups, row_part)
        return b.finish()


@dataclass(frozen=True)
class Quantize(RowQuantizer):
    """x f32 [n, width] -> q, s, z of QuantizedRows."""

    width: int
    rows: int
    group: int = 32
    lanes: int = 16
    digits: int = 1

    @property
    def output(self) -> QuantizedRows:
        """See RowQuantizer."""
        return QuantizedRows(self.width, self.rows, self.group, self.lanes, self.digits)
