"""Parts of attention in memory: two of them become one, and a part becomes a result.

A part is (max, sum, acc), see `sparse_attn.partial`: f32 [rows, heads], twice, and
[rows, heads * head_dim].
"""

from dataclasses import dataclass
from math import e, log2

from nybble.backends.building.values import Value, f32
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.image import Access, Parameter
from nybble.backends.gpu.kernels.instructions import exp2, maximum
from nybble.backends.gpu.kernels.rows.machine import THREADS, RowKernel, Rows, RowSpec, buffer

PART = ("max", "sum", "acc")


def part_of(prefix: str, access: Access, rows: int, columns: int) -> tuple[Parameter, ...]:
    """The parameters of a part; rows: of all heads."""
    sizes = (1, 1, columns)
    return tuple(
        buffer(prefix + name, "f32", access, rows, size)
        for name, size in zip(PART, sizes, strict=True)
    )


@dataclass(frozen=True)
class MergeSpec(RowSpec):
    """The part of the union of two disjoint sets of keys, of their parts.

    rows: of all heads. columns: features of a head.
    """

    rows: int
    columns: int

    @property
    def name(self) -> str:
        """See RowSpec."""
        return f"merge_{self.rows}x{self.columns}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """left_max, left_sum, left_acc, the same of right, then max, sum, acc."""
        size = (self.rows, self.columns)
        read = [part_of(f"{one}_", Access.READ, *size) for one in ("left", "right")]
        return (*read[0], *read[1], *part_of("", Access.WRITE, *size))


def merge_kernel(spec: MergeSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a thread for each feature."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    sizes = (1, 1, spec.columns) * 3
    parts = [Rows(b, one, "f32", size) for one, size in zip(b.parameters, sizes, strict=True)]
    sides, made = (parts[:3], parts[3:6]), parts[6:]
    at = b.block_id() * THREADS + b.thread()
    with b.if_(at < spec.rows * spec.columns):
        row, column = at // spec.columns, at % spec.columns
        first = b.word(0)
        largest = [side[0].read(row, first) for side in sides]
        most = maximum(b, *largest)
        weights = [_weight(b, one, most) for one in largest]
        sums = [[side[1].read(row, first), side[2].read(row, column)] for side in sides]
        pairs = zip(*sums, strict=True)
        total, acc = (b.fma(weights[1], right, weights[0] * left) for left, right in pairs)
        made[2].write(row, column, acc)
        with b.if_(column.eq(0)):
            made[0].write(row, first, most)
            made[1].write(row, first, total)
    return RowKernel(b, spec.parameters, -(-spec.rows * spec.columns // THREADS))


def _weight(b: GpuBuilder, largest: Value, most: Value) -> Value:
    """What a part's sums are multiplied by; 0 of one that has seen no key."""
    none = b.const(float("-inf"), f32)
    return b.select(largest > none, exp2(b, (largest - most) * log2(e)), b.const(0.0, f32))


@dataclass(frozen=True)
class FinishSpec(RowSpec):
    """y = acc / sum, 0 where no key was seen; rows and columns as MergeSpec has them.

    output: the type of y.
    """

    rows: int
    columns: int
    output: str = "f32"

    @property
    def name(self) -> str:
        """See RowSpec."""
        return f"finish_{self.output}_{self.rows}x{self.columns}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """sum, acc, y."""
        _, total, acc = part_of("", Access.READ, self.rows, self.columns)
        return (total, acc, buffer("y", self.output, Access.WRITE, self.rows, self.columns))


def finish_kernel(spec: FinishSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a thread for each feature."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    total, acc, y = (
        Rows(b, one, kind, size)
        for one, kind, size in zip(
            b.parameters,
            ("f32", "f32", spec.output),
            (1, spec.columns, spec.columns),
            strict=True,
        )
    )
    at = b.block_id() * THREADS + b.thread()
    with b.if_(at < spec.rows * spec.columns):
        row, column = at // spec.columns, at % spec.columns
        whole = total.read(row, b.word(0))
        made = acc.read(row, column) / b.select(whole > 0.0, whole, b.const(1.0, f32))
        y.write(row, column, made)
    return RowKernel(b, spec.parameters, -(-spec.rows * spec.columns // THREADS))
