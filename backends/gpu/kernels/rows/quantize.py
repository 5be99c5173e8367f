"""Activations to integers of 8 bits, in the order in which products of streamed weights read them.

The integers and scales are those of `numpy_ref.quantize.quantize_rows`, bit for bit. A lane of a
product reads 16 bytes for 64 columns of a token: its four columns of each tile of 16, see
`packing.stream`, in the order of `packing.bytes`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import i32, i64
from xdsl.ir import Attribute

from nybble.backends.building.values import Value, f32, vec
from nybble.backends.gpu.builder import ELEMENTS, GpuBuilder
from nybble.backends.gpu.image import Access, Parameter
from nybble.backends.gpu.kernels.instructions import butterfly
from nybble.backends.gpu.kernels.rows.machine import (
    BYTES,
    SUMS_BYTES,
    THREADS,
    WARPS,
    RowKernel,
    RowSpec,
    block_sum,
    buffer,
)
from nybble.backends.gpu.kernels.rows.norm import NormBefore
from nybble.backends.gpu.packing.stream import TILES, UNIT
from nybble.dialects.numpy_ref.arrays import F32
from nybble.dialects.numpy_ref.quantize import SMALLEST_AMAX, dequantize_rows, quantize_rows

LARGEST = 127.0
RUNS = 32
"""Columns that a lane's codes of two tiles are of, where those lie side by side."""
WORD = 4
"""Columns of a word of codes."""


@dataclass(frozen=True)
class QuantizeSpec(RowSpec):
    """x [tokens, cols] to codes, a scale for each token, and sums of `run` columns.

    run_columns: `StreamLayout.run_columns`. order: which of four columns each byte is of. norm:
    what is done to whole rows before, with a weight. source: "f32" or "f16", the type of x.
    """

    tokens: int
    cols: int
    run_columns: int
    order: tuple[int, int, int, int]
    run: int
    norm: NormBefore | None = None
    source: str = "f32"

    @property
    def name(self) -> str:
        """Tells the kernel from others."""
        order = "".join(map(str, self.order))
        kind = "norm_quantize" if self.norm else "quantize"
        kind += "_f16" * (self.source == "f16")
        return f"{kind}_{self.tokens}x{self.cols}_{self.run_columns}_{order}_{self.run}"

    @property
    def pitch(self) -> int:
        """Sums of a run of columns: one for each token, and some that mean nothing."""
        return -(-self.tokens // 8) * 8

    @property
    def scale_error(self) -> float:
        """How far scales may be from the reference's, relatively."""
        return 0.0

    @property
    def results(self) -> tuple[Parameter, ...]:
        """Codes [tokens, cols], scales [tokens], and totals [cols / run, pitch]."""
        return (
            Parameter("x", "i8", Access.WRITE, self.tokens * self.cols),
            buffer("scales", "f32", Access.WRITE, 1, self.tokens),
            buffer("totals", "f32", Access.WRITE, self.cols // self.run, self.pitch),
        )

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What is quantized, the weight of a norm, and the results."""
        weight = buffer("weight", "f32", Access.READ, 1, self.cols)
        source = buffer("input", self.source, Access.READ, self.tokens, self.cols)
        return (source, *((weight,) if self.norm else ()), *self.results)

    def places(self) -> npt.NDArray[np.int64]:
        """The column of each byte of a token's codes, [cols]."""
        byte = np.arange(self.cols)
        unit, rest = divmod(byte, UNIT)
        quad, rest = divmod(rest, WORD * TILES)
        tile, index = divmod(rest, WORD)
        column = np.array(self.order)[index]
        if self.run_columns == RUNS:
            return UNIT * unit + 32 * (tile // 2) + 8 * quad + 4 * (tile % 2) + column
        return UNIT * unit + 16 * tile + 4 * quad + column

    def reference(self, x: F32) -> tuple[F32, dict[str, npt.NDArray[Any]]]:
        """What x [tokens, cols] is rounded to, and the results, totals without their padding."""
        made = quantize_rows(x, self.cols)
        runs = made.q.astype(np.int64).reshape(self.tokens, -1, self.run)
        results = {
            "x": np.ascontiguousarray(made.q[:, self.places()]),
            "scales": made.s.reshape(1, -1),
            "totals": np.ascontiguousarray(runs.sum(axis=2).T.astype(np.float32)),
        }
        return dequantize_rows(made.q, made.s), results


def quantize_kernel(spec: QuantizeSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a block for each token."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    source, *weight, codes, scales, totals = b.parameters
    token = b.block_id()
    first = b.offset(source, b.zext(token, i64) * (spec.cols * BYTES[spec.source]))
    row = Row(b, spec, first)
    if spec.norm is not None:
        row.normalise(weight[0], spec.norm)
    amax = row.largest()
    vanishes, nothing = amax < float(SMALLEST_AMAX), b.const(0.0, f32)
    inverse = b.select(vanishes, nothing, b.const(LARGEST, f32) / amax)
    with b.if_(b.thread().eq(0)):
        scale = b.select(vanishes, nothing, amax / LARGEST)
        b.store(scale, b.offset(scales, b.zext(token * 4, i64)))
    out = b.offset(codes, b.zext(token, i64) * spec.cols)
    with b.for_(b.const(0, i32), row.rounds, 1) as loop:
        index = loop.iv * THREADS + b.thread()
        exists = index < row.words
        numbers = [b.fptosi(b.roundeven(value * inverse)) for value in row.word(index)]
        total = numbers[0] + numbers[1] + numbers[2] + numbers[3]
        distance = 1
        while distance < spec.run // WORD:
            total = total + butterfly(b, total, distance)
            distance *= 2
        with b.if_(exists):
            b.store(packed(b, numbers, spec.order), b.offset(out, placed(b, spec, index)))
        run = b.binary("udiv", index, b.const(spec.run // WORD, i32))
        with b.if_(exists & (index & (spec.run // WORD - 1)).eq(0)):
            place = b.zext((run * spec.pitch + token) * 4, i64)
            b.store(b.sitofp(total), b.offset(totals, place))
    return RowKernel(b, spec.parameters, spec.tokens, 2 * SUMS_BYTES)


class Row:
    """The columns of a token, four at a time, as this thread reads them."""

    def __init__(self, b: GpuBuilder, spec: QuantizeSpec, source: Value):
        self.b = b
        self.source = source
        self.kind = ELEMENTS[spec.source]
        self.cols = spec.cols
        self.words, self.rounds = spec.cols // WORD, -(-spec.cols // (WORD * THREADS))
        self._factors: Callable[[Value], list[Value]] | None = None

    def read(self, pointer: Value, index: Value, kind: Attribute = f32) -> list[Value]:
        """Four numbers as f32; those of the last word instead of ones that do not exist."""
        b, known = self.b, self.b.min(index, self.words - 1)
        size = WORD * (4 if kind == f32 else 2)
        word = b.load(b.offset(pointer, b.zext(known * size, i64)), vec(WORD, kind))
        return [b.to_float(one) for one in b.lanes_of(word)]

    def word(self, index: Value) -> list[Value]:
        """Four columns, normalised if they are to be."""
        values = self.read(self.source, index, self.kind)
        if self._factors is None:
            return values
        factors = self._factors(index)
        return [value * factor for value, factor in zip(values, factors, strict=True)]

    def normalise(self, weight: Value, norm: NormBefore) -> None:
        """From now on columns are normalised."""
        b, nothing = self.b, self.b.const(0.0, f32)
        with b.for_(b.const(0, i32), self.rounds, 1, [nothing]) as loop:
            index, total = loop.iv * THREADS + b.thread(), loop.args[0]
            for value in self.read(self.source, index, self.kind):
                total = b.fma(value, b.select(index < self.words, value, nothing), total)
            loop.yield_(total)
        mean = block_sum(b, loop.results[0]) / float(self.cols)
        inverse = 1.0 / b.sqrt(mean + norm.eps)

        def factors(index: Value) -> list[Value]:
            scales = self.read(weight, index)
            return [inverse * (one + 1.0 if norm.unit_offset else one) for one in scales]

        self._factors = factors

    def largest(self) -> Value:
        """The largest magnitude."""
        b = self.b
        with b.for_(b.const(0, i32), self.rounds, 1, [b.const(0.0, f32)]) as loop:
            found = loop.args[0]
            for value in self.word(loop.iv * THREADS + b.thread()):
                found = larger(b, found, b.abs(value))
            loop.yield_(found)
        return block_largest(b, loop.results[0])


def placed(b: GpuBuilder, spec: QuantizeSpec, index: Value) -> Value:
    """Where the codes of four columns lie in a row: the inverse of `QuantizeSpec.places`."""
    unit, rest = index.shr(4), index & 15
    if spec.run_columns == RUNS:
        tile, quad = rest.shr(3) * 2 + (rest & 1), rest.shr(1) & 3
    else:
        tile, quad = rest.shr(2), rest & 3
    return b.zext(unit * UNIT + quad * (WORD * TILES) + tile * WORD, i64)


def packed(b: GpuBuilder, numbers: list[Value], order: tuple[int, int, int, int]) -> Value:
    """The low bytes of four i32, in an order."""
    first, second, third, fourth = (numbers[i] for i in order)
    low, high = b.permute(first, second, 0x40), b.permute(third, fourth, 0x40)
    return b.permute(low, high, 0x5410)


def larger(b: GpuBuilder, x: Value, y: Value) -> Value:
    """The larger of two f32, or a NaN."""
    return b.ptx("max.NaN.f32 $0, $1, $2;", [f32], [x, y])[0]


def block_largest(b: GpuBuilder, value: Value) -> Value:
    """The largest of every thread's f32 of the block, in all of them.

    Takes SUMS_BYTES of shared memory after those of `block_sum`, and may be called once.
    """
    shared = b.offset(b.shared(), SUMS_BYTES)
    for distance in (16, 8, 4, 2, 1):
        value = larger(b, value, butterfly(b, value, distance))
    warp, lane = b.thread().shr(5), b.thread() & 31
    with b.if_(lane.eq(0)):
        b.store(value, b.offset(shared, warp * 4))
    b.barrier()
    found = b.load(shared, f32)
    for index in range(1, WARPS):
        found = larger(b, found, b.load(b.offset(shared, index * 4), f32))
    return found
