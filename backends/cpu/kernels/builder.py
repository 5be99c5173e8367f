"""KernelBuilder: write a kernel as maths, get a `func.func` in upstream dialects.

A kernel is `func.func @name(%buf0, .., %n, %pos, %tid, %nth)`: flat static memrefs, then the number
of token rows, the absolute position of row 0, and this thread's index among `nth`. Example:

    b = KernelBuilder("double", [BufferSpec("x", 64, f32), BufferSpec("y", 64, f32)])
    x, y = b.buffers
    lo, hi = b.partition(4)                    # this thread's share of 4 blocks of 16
    with b.for_(lo, hi) as block:
        v = x.vload(block.iv * 16, 16)
        y.vstore(v + v, block.iv * 16)
    function = b.finish()                      # func.FuncOp, verified by nobody yet

Loops with carried values:

    with b.for_(0, 64, 16, inits=[b.const(0.0, vec(16, f32))]) as loop:
        loop.yield_(loop.args[0] + x.vload(loop.iv, 16))
    total = b.reduce("add", loop.results[0])

Construction only: nothing is printed, compiled or measured here. Integer semantics (when `<`, `>>`
and `//` are signed) are those of `values`.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, bf16, f16
from xdsl.ir import Attribute, Region

from nybble.backends.building.expressions import Expressions, For, If
from nybble.backends.building.values import (
    Operand,
    Value,
    f32,
    i1,
    i8,
    i16,
    i32,
    i64,
    index,
    vec,
)
from nybble.backends.cpu.kernels.buffers import Buffer, BufferSpec


class KernelBuilder(Expressions):
    """Builds one kernel; `buffers` are its memref arguments in order."""

    def __init__(self, name: str, buffers: Sequence[BufferSpec]):
        types: list[Attribute] = [spec.type for spec in buffers]
        super().__init__([*types, *[index] * 4])
        self.name = name
        arguments = [Value(self, a) for a in self.entry.args]
        self.buffers = [
            Buffer(a, s.size, s.dtype) for a, s in zip(arguments, buffers, strict=False)
        ]
        self._by_name = {s.name: b for s, b in zip(buffers, self.buffers, strict=True)}
        self.n, self.pos, self.tid, self.nth = arguments[-4:]

    def buffer(self, name: str) -> Buffer:
        """The buffer argument of that name."""
        return self._by_name[name]

    def finish(self) -> func.FuncOp:
        """Close the function and hand it over; the builder is spent."""
        self.emit_effect(func.ReturnOp, ())
        self.close_entry()
        signature = FunctionType.from_lists([a.type for a in self.entry.args], [])
        return func.FuncOp(self.name, signature, Region(self.entry))

    # -- control

    def partition(self, total: Operand) -> tuple[Value, Value]:
        """This thread's contiguous share [lo, hi) of `total` units of work."""
        lo = self.tid * total // self.nth
        return lo, (self.tid + 1) * total // self.nth


__all__ = [
    "Buffer",
    "BufferSpec",
    "Expressions",
    "For",
    "If",
    "KernelBuilder",
    "Operand",
    "Value",
    "bf16",
    "f16",
    "f32",
    "i1",
    "i8",
    "i16",
    "i32",
    "i64",
    "index",
    "vec",
]
