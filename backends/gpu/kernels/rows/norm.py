"""Root-mean-square norm of rows, or of the heads in them, after a residual is added."""

from dataclasses import dataclass

from xdsl.dialects.builtin import i32

from nybble.backends.building.values import f32
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.image import Access, Parameter
from nybble.backends.gpu.kernels.rows.machine import (
    SUMS_BYTES,
    THREADS,
    RowKernel,
    Rows,
    block_sum,
    buffer,
    each_column,
)


@dataclass(frozen=True)
class NormSpec:
    """y [rows, columns] = norm(x + delta) * weight, f32 in, `output` out.

    length: columns of a run that is normalised by itself, which divides them; the weight is as
    long. adds: whether there is a delta; the sum is then written, too. unit_offset: whether the
    factor is 1 + weight. y: rounded to f16 for products, or f32.
    """

    rows: int
    columns: int
    length: int
    eps: float
    unit_offset: bool = False
    adds: bool = False
    output: str = "f16"

    @property
    def name(self) -> str:
        """Tells the kernel from others."""
        tags = "_add" * self.adds + "_unit" * self.unit_offset
        return f"norm{tags}_{self.output}_{self.rows}x{self.columns}_{self.length}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """x, weight, y; and before y delta and sum."""
        size = (self.rows, self.columns)
        x = buffer("x", "f32", Access.READ, *size)
        weight = buffer("weight", "f32", Access.READ, 1, self.length)
        more = (
            buffer("delta", "f32", Access.READ, *size),
            buffer("sum", "f32", Access.WRITE, *size),
        )
        y = buffer("y", self.output, Access.WRITE, *size)
        return (x, weight, *(more if self.adds else ()), y)


def norm_kernel(spec: NormSpec) -> RowKernel:
    """The kernel: a block for each run."""
    b = GpuBuilder(spec.name, spec.parameters)
    at = dict(zip((one.name for one in spec.parameters), b.parameters, strict=True))
    x, y = Rows(b, at["x"], "f32", spec.length), Rows(b, at["y"], spec.output, spec.length)
    source, run = x, b.block_id()
    zero = b.const(0.0, f32)
    with b.for_(b.thread(), b.const(spec.length, i32), THREADS, [zero]) as loop:
        value = x.read(run, loop.iv)
        if spec.adds:
            value = value + Rows(b, at["delta"], "f32", spec.length).read(run, loop.iv)
            Rows(b, at["sum"], "f32", spec.length).write(run, loop.iv, value)
        loop.yield_(b.fma(value, value, loop.args[0]))
    if spec.adds:
        source = Rows(b, at["sum"], "f32", spec.length)
    mean = block_sum(b, loop.results[0]) / float(spec.length)
    factor = 1.0 / b.sqrt(mean + spec.eps)
    weight = Rows(b, at["weight"], "f32", spec.length)
    with each_column(b, spec.length) as column:
        scale = weight.read(0, column)
        scale = scale + 1.0 if spec.unit_offset else scale
        y.write(run, column, source.read(run, column) * factor * scale)
    blocks = spec.rows * spec.columns // spec.length
    return RowKernel(b, spec.parameters, blocks, SUMS_BYTES)
