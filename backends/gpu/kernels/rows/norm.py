"""Root-mean-square norm of rows, or of the heads in them."""

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
    RowSpec,
    block_sum,
    buffer,
    each_column,
)


@dataclass(frozen=True)
class NormBefore:
    """A root-mean-square norm `x / sqrt(mean(x^2) + eps) * w`, or `(1 + w)`, before something."""

    eps: float
    unit_offset: bool = False


@dataclass(frozen=True)
class NormSpec(RowSpec):
    """y [rows, columns] = norm(x) * weight, f32 in, `output` out.

    length: columns of a run that is normalised by itself, which divides them; the weight is as
    long. y: rounded to f16 or bf16 for products, or f32.
    """

    rows: int
    columns: int
    length: int
    norm: NormBefore
    output: str = "f16"

    @property
    def name(self) -> str:
        """Tells the kernel from others."""
        tag = "_unit" * self.norm.unit_offset
        return f"norm{tag}_{self.output}_{self.rows}x{self.columns}_{self.length}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """x, weight, y."""
        return (
            buffer("x", "f32", Access.READ, self.rows, self.columns),
            buffer("weight", "f32", Access.READ, 1, self.length),
            buffer("y", self.output, Access.WRITE, self.rows, self.columns),
        )


def norm_kernel(spec: NormSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a block for each run."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    source, factors, result = b.parameters
    x, y = (
        Rows(b, source, "f32", spec.length), Rows(b, result, spec.output, spec.length),
    )  # fmt: skip
    run = b.block_id()
    with b.for_(b.thread(), b.const(spec.length, i32), THREADS, [b.const(0.0, f32)]) as loop:
        value = x.read(run, loop.iv)
        loop.yield_(b.fma(value, value, loop.args[0]))
    mean = block_sum(b, loop.results[0]) / float(spec.length)
    factor = 1.0 / b.sqrt(mean + spec.norm.eps)
    weight = Rows(b, factors, "f32", spec.length)
    with each_column(b, spec.length) as column:
        scale = weight.read(0, column)
        scale = scale + 1.0 if spec.norm.unit_offset else scale
        y.write(run, column, x.read(run, column) * factor * scale)
    blocks = spec.rows * spec.columns // spec.length
    return RowKernel(b, spec.parameters, blocks, SUMS_BYTES)
