"""What kernels of rows are written with: 32 bits of any float type, sums over a block."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from xdsl.dialects.builtin import ModuleOp, i32, i64

from nybble.backends.building.values import Operand, Value, f32
from nybble.backends.gpu.arch import Arch
from nybble.backends.gpu.builder import ELEMENTS, GpuBuilder
from nybble.backends.gpu.codegen import compile_kernel
from nybble.backends.gpu.cuda.source import cuda_source
from nybble.backends.gpu.image import Access, KernelImage, Parameter
from nybble.backends.gpu.kernels.instructions import butterfly

THREADS = 256
WARPS = THREADS // 32
SUMS_BYTES = 4 * WARPS
"""Shared memory of `block_sum`."""
BYTES = {"f16": 2, "bf16": 2, "f32": 4, "i32": 4}


@dataclass(frozen=True)
class Rows:
    """Numbers of a type, row by row, in a buffer."""

    b: GpuBuilder
    pointer: Value
    dtype: str
    columns: int

    def place(self, row: Operand, column: Value) -> Value:
        """The pointer to one number; row and column: i32."""
        b, size = self.b, BYTES[self.dtype]
        inside = b.zext(column * size, i64)
        if isinstance(row, int):
            return b.offset(self.pointer, inside + row * self.columns * size)
        assert isinstance(row, Value)
        return b.offset(self.pointer, b.zext(row, i64) * (self.columns * size) + inside)

    def read(self, row: Operand, column: Value) -> Value:
        """One number as f32."""
        return self.b.to_float(self.b.load(self.place(row, column), ELEMENTS[self.dtype]))

    def write(self, row: Operand, column: Value, value: Value) -> None:
        """Round an f32 to the type, and put it there."""
        rounded = self.b.to_float(value, ELEMENTS[self.dtype])
        self.b.store(rounded, self.place(row, column))


def buffer(name: str, dtype: str, access: Access, rows: int, columns: int) -> Parameter:
    """The parameter of [rows, columns] numbers."""
    return Parameter(name, dtype, access, rows * columns * BYTES[dtype])


@contextmanager
def each_column(b: GpuBuilder, columns: int, threads: int = THREADS) -> Generator[Value]:
    """The body for each column that this thread has, one in `threads`."""
    with b.for_(b.thread(), b.const(columns, i32), threads) as loop:
        yield loop.iv


def block_sum(b: GpuBuilder, value: Value) -> Value:
    """The sum of an f32 of every thread of the block, in all of them; in the same order always.

    Takes SUMS_BYTES of shared memory, which nobody else may use, and may be called once.
    """
    for distance in (16, 8, 4, 2, 1):
        value = value + butterfly(b, value, distance)
    warp, lane = b.thread().shr(5), b.thread() & 31
    with b.if_(lane.eq(0)):
        b.store(value, b.offset(b.shared(), warp * 4))
    b.barrier()
    total = b.const(0.0, f32)
    for index in range(WARPS):
        total = total + b.load(b.offset(b.shared(), index * 4), f32)
    return total


class RowSpec(ABC):
    """What a kernel of rows is made for; subclasses are frozen dataclasses."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Tells the kernel from others."""

    @property
    @abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """The kernel's parameters, in order."""


@dataclass(frozen=True)
class RowKernel:
    """A kernel before it is compiled."""

    b: GpuBuilder
    parameters: tuple[Parameter, ...]
    blocks: int
    shared: int = 0

    @cached_property
    def module(self) -> ModuleOp:
        """The finished module."""
        return self.b.finish(THREADS)

    def source(self) -> str:
        """The kernel as CUDA C++; see `cuda.source`."""
        return cuda_source(self.module, [one.name for one in self.parameters])

    def image(self, arch: Arch) -> KernelImage:
        """The compiled kernel; raises CodegenError."""
        ptx = compile_kernel(self.module, arch)
        grid, block = (self.blocks, 1, 1), (THREADS, 1, 1)
        return KernelImage(self.b.name, arch.name, ptx, self.parameters, grid, block, self.shared)
