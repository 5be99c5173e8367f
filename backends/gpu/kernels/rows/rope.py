"""Rotary embedding of rows of heads, into rows of f16 or into the cache."""

from dataclasses import dataclass

from xdsl.dialects.builtin import i32

from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.image import Access, Parameter
from nybble.backends.gpu.kernels.rows.machine import RowKernel, Rows, buffer, each_column


@dataclass(frozen=True)
class RopeSpec:
    """One token of `heads` heads, f32 [heads * head_dim], at the position in a buffer, to f16.

    rotates: whether heads are turned by their position (half-split form), by tables f32
    [context, head_dim / 2]; values are not. cached: whether head h goes to row `position` of
    [heads, context, head_dim], and not to a row of its own.
    """

    heads: int
    head_dim: int
    context: int
    rotates: bool = True
    cached: bool = False

    @property
    def name(self) -> str:
        """Tells the kernel from others."""
        tags = ("rope" if self.rotates else "copy") + "_cached" * self.cached
        return f"{tags}_{self.heads}x{self.head_dim}_{self.context}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """x, position, then cos and sin where they turn, then y or cache."""
        size, half = (self.heads, self.head_dim), self.head_dim // 2
        x = buffer("x", "f32", Access.READ, *size)
        tables = [buffer(one, "f32", Access.READ, self.context, half) for one in ("cos", "sin")]
        cache = buffer("cache", "f16", Access.UPDATE, self.heads * self.context, self.head_dim)
        y = cache if self.cached else buffer("y", "f16", Access.WRITE, *size)
        position = buffer("position", "i32", Access.READ, 1, 1)
        return (x, position, *(tables if self.rotates else ()), y)


def rope_kernel(spec: RopeSpec) -> RowKernel:
    """The kernel: a block for each head."""
    b = GpuBuilder(spec.name, spec.parameters)
    at = dict(zip((one.name for one in spec.parameters), b.parameters, strict=True))
    head, half = b.block_id(), spec.head_dim // 2
    position = b.load(at["position"], i32)
    x = Rows(b, at["x"], "f32", spec.head_dim)
    target = Rows(b, at["cache" if spec.cached else "y"], "f16", spec.head_dim)
    row = head * spec.context + position if spec.cached else head
    with each_column(b, half) as column:
        first, second = x.read(head, column), x.read(head, column + half)
        if spec.rotates:
            cos, sin = (
                Rows(b, at[one], "f32", half).read(position, column) for one in ("cos", "sin")
            )
            first, second = first * cos - second * sin, second * cos + first * sin
        target.write(row, column, first)
        target.write(row, column + half, second)
    return RowKernel(b, spec.parameters, spec.heads)
