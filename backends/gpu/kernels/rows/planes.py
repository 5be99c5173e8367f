"""Activations to bipolar integers in bit planes, as products of planes of weights read them.

A warp has a group of columns of a token: a vote among its lanes is the word of a plane. Codes and
scales are those of the format `abNgG`, bit for bit; but for one bit, where the scale is a mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects import math
from xdsl.dialects.builtin import i32, i64

from nybble.backends.building.values import Value, f32
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.image import Access, Parameter
from nybble.backends.gpu.kernels.instructions import butterfly, maximum
from nybble.backends.gpu.kernels.rows.machine import (
    SUMS_BYTES,
    THREADS,
    WARPS,
    RowKernel,
    Rows,
    RowSpec,
    block_sum,
    buffer,
)
from nybble.backends.gpu.kernels.rows.norm import NormBefore
from nybble.dialects.lowbit import formats
from nybble.dialects.numpy_ref.arrays import F32

LANES = 32
"""Columns of a word of a plane."""


@dataclass(frozen=True)
class PlanesSpec(RowSpec):
    """x [tokens, cols] to `bits` planes, scales of `group` columns, and sums of `run`.

    block: columns of an `mma`. A lane of a product has `block / 4` columns of it in a row: all
    planes of these lie together. norm: what is done to whole rows before, with a weight. source:
    "f32" or "f16", the type of x.
    """

    tokens: int
    cols: int
    bits: int
    group: int
    block: int
    run: int
    norm: NormBefore | None = None
    source: str = "f32"

    @property
    def name(self) -> str:
        """Tells the kernel from others."""
        kind = "norm_" * bool(self.norm) + f"planes{self.bits}" + "_f16" * (self.source == "f16")
        return f"{kind}_{self.tokens}x{self.cols}_{self.group}_{self.block}_{self.run}"

    @property
    def pitch(self) -> int:
        """Numbers of a group: one for each token, and some that mean nothing."""
        return -(-self.tokens // 8) * 8

    @property
    def lane_words(self) -> int:
        """Words of a plane that a lane of a product has in a block."""
        return self.block // 128

    @property
    def scale_error(self) -> float:
        """How far scales may be from the reference's, relatively: the sums of means are f32."""
        return 2.0**-20 if self.bits == 1 else 0.0

    @property
    def results(self) -> tuple[Parameter, ...]:
        """Planes, scales [cols / group, pitch], and totals [cols / run, pitch] of integers."""
        return (
            Parameter("x", "i32", Access.WRITE, self.tokens * self.cols * self.bits // 8),
            buffer("scales", "f32", Access.WRITE, self.cols // self.group, self.pitch),
            buffer("totals", "f32", Access.WRITE, self.cols // self.run, self.pitch),
        )

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What is quantized, the weight of a norm, and the results."""
        weight = buffer("weight", "f32", Access.READ, 1, self.cols)
        source = buffer("input", self.source, Access.READ, self.tokens, self.cols)
        return (source, *((weight,) if self.norm else ()), *self.results)

    def reference(self, x: F32) -> tuple[F32, dict[str, npt.NDArray[Any]]]:
        """What x [tokens, cols] is rounded to, and the results, numbers without their padding."""
        made = formats.get(f"ab{self.bits}g{self.group}").quantize(x)
        codes = made.require_codes()
        planes = np.stack([codes >> plane & 1 for plane in range(self.bits)])
        words = np.packbits(planes, axis=2, bitorder="little").view(np.uint32)
        shape = (self.bits, self.tokens, -1, self.lane_words)
        ordered = words.reshape(shape).transpose(1, 2, 0, 3)
        integers = 2 * codes.astype(np.int64) - (2**self.bits - 1)
        totals = integers.reshape(self.tokens, -1, self.run).sum(axis=2)
        results = {
            "x": np.ascontiguousarray(ordered).reshape(self.tokens, -1).view(np.int32),
            "scales": np.ascontiguousarray(made.scale.T),
            "totals": np.ascontiguousarray(totals.T.astype(np.float32)),
        }
        return made.dequantize(), results


def planes_kernel(spec: PlanesSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a warp for each group of a token.

    A block has groups of one token, and sums up the squares of all its columns for a norm.
    """
    b = GpuBuilder(name or spec.name, spec.parameters)
    groups = spec.cols // spec.group
    blocks = -(-groups // WARPS)
    token, part = (b.binary(kind, b.block_id(), b.const(blocks, i32)) for kind in ("udiv", "urem"))
    number = part * WARPS + b.thread().shr(5)
    row = Group(b, spec, token, number)
    if spec.norm is not None:
        row.normalise(spec.norm)
    with b.if_(number < groups):
        row.write()
    return RowKernel(b, spec.parameters, spec.tokens * blocks, SUMS_BYTES if spec.norm else 0)


class Group:
    """A group of columns of a token, of this warp."""

    def __init__(self, b: GpuBuilder, spec: PlanesSpec, token: Value, group: Value):
        self.b = b
        self.spec = spec
        self.lane = b.thread() & (LANES - 1)
        self.token = token
        self.group = group
        source, *weight, self.planes, self.scales, self.totals = b.parameters
        self.source = Rows(b, source, spec.source, spec.cols)
        self.weight = Rows(b, weight[0], "f32", spec.cols) if weight else None
        self._factors: Callable[[Value], Value] | None = None

    def normalise(self, norm: NormBefore) -> None:
        """From now on columns are normalised; all threads of the block take part."""
        b, spec, weight = self.b, self.spec, self.weight
        assert weight is not None
        with b.for_(b.thread(), b.const(spec.cols, i32), THREADS, [b.const(0.0, f32)]) as loop:
            value = self.source.read(self.token, loop.iv)
            loop.yield_(b.fma(value, value, loop.args[0]))
        mean = block_sum(b, loop.results[0]) / float(spec.cols)
        inverse = 1.0 / b.sqrt(mean + norm.eps)

        def factor(column: Value) -> Value:
            scale = weight.read(0, column)
            return inverse * (scale + 1.0 if norm.unit_offset else scale)

        self._factors = factor

    def value(self, word: Value) -> Value:
        """This lane's column of a word of the group."""
        column = self.group * self.spec.group + word * LANES + self.lane
        value = self.source.read(self.token, column)
        return value if self._factors is None else value * self._factors(column)

    def write(self) -> None:
        """Quantize the group."""
        b, spec, scale = self.b, self.spec, self.scale()
        runs, words = spec.group // spec.run, spec.run // LANES
        self.number(self.scales, self.group, scale)
        with b.for_(b.const(0, i32), runs, 1) as each:
            with b.for_(b.const(0, i32), words, 1, [b.const(0, i32)]) as loop:
                word = each.iv * words + loop.iv
                votes = self.votes(self.value(word), scale)
                self.store(word, votes)
                total = loop.args[0]
                for plane, bits in enumerate(votes):
                    total = total + (b.count_bits(bits) << plane)
                loop.yield_(total)
            integers = loop.results[0] * 2 - spec.run * (2**spec.bits - 1)
            self.number(self.totals, self.group * runs + each.iv, b.sitofp(integers))

    def number(self, target: Value, index: Value, value: Value) -> None:
        """Write a number of the token."""
        b = self.b
        with b.if_(self.lane.eq(0)):
            b.store(
                value, b.offset(target, b.zext((index * self.spec.pitch + self.token) * 4, i64))
            )

    def scale(self) -> Value:
        """The scale of the group, in all lanes."""
        b, spec = self.b, self.spec
        with b.for_(b.const(0, i32), spec.group // LANES, 1, [b.const(0.0, f32)]) as loop:
            size = b.abs(self.value(loop.iv))
            kept = loop.args[0]
            loop.yield_(kept + size if spec.bits == 1 else maximum(b, kept, size))
        found = loop.results[0]
        for distance in (16, 8, 4, 2, 1):
            other = butterfly(b, found, distance)
            found = found + other if spec.bits == 1 else maximum(b, found, other)
        return found / float(spec.group if spec.bits == 1 else 2**spec.bits - 1)

    def votes(self, value: Value, scale: Value) -> list[Value]:
        """The word of each plane of a value in every lane."""
        b, bits = self.b, self.spec.bits
        if bits == 1:
            return [ballot(b, value > 0.0)]
        nothing = b.const(0.0, f32)
        half = b.select(scale.eq(0.0), nothing, value / scale) * 0.5
        most = float(2**bits)
        near = b.min(b.max(half, -most), most)
        code = b.fptosi(b.unary(math.CeilOp, near)) + (2 ** (bits - 1) - 1)
        code = b.min(b.max(code, 0), 2**bits - 1)
        return [ballot(b, (code & (1 << plane)).ne(0)) for plane in range(bits)]

    def store(self, word: Value, votes: list[Value]) -> None:
        """Write a word of each plane where the lane of a product reads it."""
        b, spec = self.b, self.spec
        per_lane = spec.lane_words
        column = self.group * (spec.group // LANES) + word
        place, part = column, b.const(0, i32)
        if per_lane > 1:
            place, part = column.shr(1), column & 1
        first = place * (spec.bits * per_lane) + part
        row = b.zext(self.token, i64) * (spec.cols // 8 * spec.bits)
        target = b.offset(b.offset(self.planes, row), b.zext(first * 4, i64))
        with b.if_(self.lane.eq(0)):
            for plane, bits in enumerate(votes):
                b.store(bits, b.offset(target, plane * per_lane * 4))


def ballot(b: GpuBuilder, bit: Value) -> Value:
    """The bits of all lanes as one word."""
    text = "{.reg .pred p; setp.ne.s32 p, $1, 0; vote.sync.ballot.b32 $0, p, -1;}"
    return b.ptx(text, [i32], [b.zext(bit, i32)], effects=True)[0]
