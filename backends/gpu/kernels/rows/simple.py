"""Gates, sums, rows of a table, the last row, and the largest of a row."""

from dataclasses import dataclass
from math import e, log2, pi, sqrt

from xdsl.dialects.builtin import i32

from nybble.backends.building.values import Value, f32
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.image import Access, Parameter
from nybble.backends.gpu.kernels.instructions import butterfly, exp2
from nybble.backends.gpu.kernels.rows.machine import (
    THREADS,
    WARPS,
    RowKernel,
    Rows,
    RowSpec,
    buffer,
    each_column,
)

LOWEST = -3.4e38


@dataclass(frozen=True)
class GluSpec(RowSpec):
    """y [rows, columns] = activation(gate) * up, f32; activation: silu, gelu_tanh, sigmoid.

    output: the type of y.
    """

    rows: int
    columns: int
    activation: str
    output: str = "f16"

    @property
    def name(self) -> str:
        """Tells the kernel from others."""
        return f"glu_{self.activation}_{self.output}_{self.rows}x{self.columns}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """gate, up, y."""
        size = (self.rows, self.columns)
        read = [buffer(one, "f32", Access.READ, *size) for one in ("gate", "up")]
        return (*read, buffer("y", self.output, Access.WRITE, *size))


def glu_kernel(spec: GluSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a thread for each number."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    count = spec.rows * spec.columns
    gate, up, y = (
        Rows(b, pointer, dtype, count)
        for pointer, dtype in zip(b.parameters, ("f32", "f32", spec.output), strict=True)
    )
    at = b.block_id() * THREADS + b.thread()
    with b.if_(at < count):
        opened = gate.read(0, at)
        open_ = sigmoid(b, slope(opened, spec.activation))
        made = open_ if spec.activation == "sigmoid" else opened * open_
        y.write(0, at, made * up.read(0, at))
    return RowKernel(b, spec.parameters, -(-count // THREADS))


def slope(x: Value, activation: str) -> Value:
    """What the sigmoid is of: x, and in GELU's tanh form 2 sqrt(2 / pi) (x + 0.044715 x^3)."""
    if activation != "gelu_tanh":
        return x
    return (x * x * x * 0.044715 + x) * (2 * sqrt(2 / pi))


def sigmoid(b: GpuBuilder, x: Value) -> Value:
    """1 / (1 + exp(-x))."""
    return 1.0 / (exp2(b, x * -log2(e)) + 1.0)


@dataclass(frozen=True)
class AddSpec(RowSpec):
    """y f32 [rows, columns] = a + b."""

    rows: int
    columns: int

    @property
    def name(self) -> str:
        """Tells the kernel from others."""
        return f"add_{self.rows}x{self.columns}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """a, b, y."""
        size = (self.rows, self.columns)
        read = [buffer(one, "f32", Access.READ, *size) for one in "ab"]
        return (*read, buffer("y", "f32", Access.WRITE, *size))


def add_kernel(spec: AddSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a thread for each number."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    count = spec.rows * spec.columns
    left, right, y = (Rows(b, one, "f32", count) for one in b.parameters)
    at = b.block_id() * THREADS + b.thread()
    with b.if_(at < count):
        y.write(0, at, left.read(0, at) + right.read(0, at))
    return RowKernel(b, spec.parameters, -(-count // THREADS))


@dataclass(frozen=True)
class EmbedSpec(RowSpec):
    """y f32 [rows, columns] = scale * table[ids]; the table is f16 [vocabulary, columns]."""

    rows: int
    columns: int
    vocabulary: int
    scale: float

    @property
    def name(self) -> str:
        """Tells the kernel from others."""
        return f"embed_{self.rows}x{self.columns}_{self.vocabulary}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """ids, table, y."""
        return (
            buffer("ids", "i32", Access.READ, self.rows, 1),
            buffer("table", "f16", Access.READ, self.vocabulary, self.columns),
            buffer("y", "f32", Access.WRITE, self.rows, self.columns),
        )


def embed_kernel(spec: EmbedSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a block for each token.

    An id outside of the table reads its first or last row.
    """
    b = GpuBuilder(name or spec.name, spec.parameters)
    ids, table, y = b.parameters
    row = b.block_id()
    known = b.min(b.max(b.load(b.offset(ids, row * 4), i32), 0), spec.vocabulary - 1)
    with each_column(b, spec.columns) as column:
        value = Rows(b, table, "f16", spec.columns).read(known, column)
        Rows(b, y, "f32", spec.columns).write(row, column, value * spec.scale)
    return RowKernel(b, spec.parameters, spec.rows)


@dataclass(frozen=True)
class LastRowSpec(RowSpec):
    """y f32 [1, columns] = x [rows, columns][last], where `last` is in a buffer."""

    rows: int
    columns: int

    @property
    def name(self) -> str:
        """See RowSpec."""
        return f"last_row_{self.rows}x{self.columns}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """x, last, y."""
        return (
            buffer("x", "f32", Access.READ, self.rows, self.columns),
            buffer("last", "i32", Access.READ, 1, 1),
            buffer("y", "f32", Access.WRITE, 1, self.columns),
        )


def last_row_kernel(spec: LastRowSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a thread for each number."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    x, last, y = b.parameters
    row = b.min(b.max(b.load(last, i32), 0), spec.rows - 1)
    at = b.block_id() * THREADS + b.thread()
    with b.if_(at < spec.columns):
        value = Rows(b, x, "f32", spec.columns).read(row, at)
        Rows(b, y, "f32", spec.columns).write(0, at, value)
    return RowKernel(b, spec.parameters, -(-spec.columns // THREADS))


@dataclass(frozen=True)
class LargestSpec(RowSpec):
    """ids i32 [rows]: the first of the largest of each row of f32 [rows, columns]."""

    rows: int
    columns: int

    @property
    def name(self) -> str:
        """Tells the kernel from others."""
        return f"largest_{self.rows}x{self.columns}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """x, ids."""
        return (
            buffer("x", "f32", Access.READ, self.rows, self.columns),
            buffer("ids", "i32", Access.WRITE, self.rows, 1),
        )


def largest_kernel(spec: LargestSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a block for each row."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    x, ids = b.parameters
    row = b.block_id()
    start = [b.const(LOWEST, f32), b.const(spec.columns - 1, i32)]
    with b.for_(b.thread(), b.const(spec.columns, i32), THREADS, start) as loop:
        here = Rows(b, x, "f32", spec.columns).read(row, loop.iv)
        loop.yield_(*larger(b, loop.args, [here, loop.iv]))
    best = loop.results
    for distance in (16, 8, 4, 2, 1):
        best = larger(b, best, [butterfly(b, one, distance) for one in best])
    warp, lane = b.thread().shr(5), b.thread() & 31
    with b.if_(lane.eq(0)):
        for index, one in enumerate(best):
            b.store(one, b.offset(b.shared(), warp * 8 + index * 4))
    b.barrier()
    with b.if_(b.thread().eq(0)):
        best = start
        for index in range(WARPS):
            place = b.offset(b.shared(), index * 8)
            best = larger(b, best, [b.load(place, f32), b.load(b.offset(place, 4), i32)])
        b.store(best[1], b.offset(ids, row * 4))
    return RowKernel(b, spec.parameters, spec.rows, 8 * WARPS)


def larger(b: GpuBuilder, one: list[Value], other: list[Value]) -> list[Value]:
    """The larger of two numbers with their places; of equal ones the first."""
    (value, place), (candidate, at) = one, other
    wins = (candidate > value) | (candidate.eq(value) & (at < place))
    return [b.select(wins, candidate, value), b.select(wins, at, place)]
