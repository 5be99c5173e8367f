"""Products by `lmma`, see `gpu.lookup`: tables of activations, and bit planes of weights.

A warp has 2 tokens and 64 rows of the weight, and goes along the columns. Sums of a group are of
odd integers; the scale of the group makes results of them. What a code means beyond its odd
integer is the same for all codes of a group, and is multiplied with the sum of the activations:
that is what weights whose bits are all set give, so `lmma` counts it, too.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import i32, i64

from nybble.backends.building.values import Value, f32, vec
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.image import Access, Parameter
from nybble.backends.gpu.kernels.rows.machine import (
    THREADS,
    WARPS,
    RowKernel,
    Rows,
    RowSpec,
    buffer,
)
from nybble.backends.gpu.lookup import ENTRIES, FEATURES, ROWS, WIDTH, Lmma
from nybble.backends.gpu.packing.kind import Line, weight_kind
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import Weight

LANES = 32
ENTRY = "f16"
ACCEPTED = (1, 2, 4)
"""Bits of a weight."""


@dataclass(frozen=True)
class TablesSpec(RowSpec):
    """tables f16 [tokens / 2, cols / 16, 2, 4, 8] of x f32 [tokens, cols]; of no token zeros."""

    tokens: int
    cols: int

    @property
    def name(self) -> str:
        """See RowSpec."""
        return f"tables_{self.tokens}x{self.cols}"

    @property
    def numbers(self) -> int:
        """Entries of all tables."""
        return -(-self.tokens // ROWS) * ROWS * self.cols // WIDTH * ENTRIES

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """x, tables."""
        x = buffer("x", "f32", Access.READ, self.tokens, self.cols)
        return (x, buffer("tables", ENTRY, Access.WRITE, 1, self.numbers))


def tables_kernel(spec: TablesSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a thread for each entry."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    x = Rows(b, b.parameters[0], "f32", spec.cols)
    out = Rows(b, b.parameters[1], ENTRY, spec.numbers)
    number = b.block_id() * THREADS + b.thread()
    with b.if_(number < spec.numbers):
        entry, table = number & (ENTRIES - 1), number.shr(3)
        step, row, group = table.shr(3), table.shr(2) & (ROWS - 1), table & 3
        steps = b.const(spec.cols // 16, i32)
        pair, place = (b.binary(kind, step, steps) for kind in ("udiv", "urem"))
        token, first = pair * ROWS + row, place * 16 + group * WIDTH
        known, total = b.min(token, spec.tokens - 1), b.const(0.0, f32)
        for column in range(WIDTH):
            value = x.read(known, first + column)
            is_set = (entry.shr(column) & 1).ne(0)
            total = total + b.select(is_set, value, value * -1.0)
        out.write(0, number, b.select(token < spec.tokens, total, b.const(0.0, f32)))
    return RowKernel(b, spec.parameters, -(-spec.numbers // THREADS))


@dataclass(frozen=True)
class LookupSpec(RowSpec):
    """y f32 [tokens, rows] of tables of activations, and of weights of `bits` bits in groups."""

    format: str
    tokens: int
    rows: int
    cols: int
    bits: int
    group: int

    @property
    def name(self) -> str:
        """See RowSpec."""
        return f"lmma_w{self.bits}_{self.tokens}x{self.rows}x{self.cols}"

    @property
    def tiles(self) -> int:
        """Tiles of 64 rows."""
        return -(-self.rows // FEATURES)

    @property
    def pairs(self) -> int:
        """Tiles of 2 tokens."""
        return -(-self.tokens // ROWS)

    @property
    def plane_bytes(self) -> int:
        """Bytes of all planes; factors and addends of groups follow, f32 each."""
        return self.tiles * FEATURES * self.cols * self.bits // 8

    @property
    def factor_bytes(self) -> int:
        """Bytes of the factors, and as many of the addends."""
        return self.tiles * FEATURES * (self.cols // self.group) * 4

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """tables, w, y."""
        numbers = TablesSpec(self.tokens, self.cols).numbers
        weights = self.plane_bytes + 2 * self.factor_bytes
        return (
            buffer("tables", ENTRY, Access.READ, 1, numbers),
            Parameter("w", "u8", Access.READ, weights),
            buffer("y", "f32", Access.WRITE, self.tokens, self.rows),
        )

    def pack(self, weight: Weight) -> npt.NDArray[np.uint8]:
        """The bytes of a weight [rows, cols]: planes [tile, step of 16 columns, plane, row], then
        factors and addends [tile, group, row], so that it is factor * odd integer + addend."""
        if (weight.spec, weight.shape) != (self.format, (self.rows, self.cols)):
            raise NybbleError(
                f"a weight of '{weight.spec}' {weight.shape}",
                accepted=f"'{self.format}' {(self.rows, self.cols)}",
            )
        kind, padding = weight_kind(formats.get(self.format), self.cols), self._padding
        assert isinstance(kind.meaning, Line)
        codes = np.pad(weight.require_codes(), padding).reshape(self.tiles, FEATURES, -1, 16)
        planes = np.stack([codes >> plane & 1 for plane in range(self.bits)], axis=1)
        words = np.packbits(planes.astype(np.uint8), axis=-1, bitorder="little").view(np.uint16)
        ordered = words[..., 0].transpose(0, 3, 1, 2)
        first = kind.meaning.first + kind.meaning.step * (2**self.bits - 1) / 2
        if weight.zero_codes is not None:
            first = first - kind.meaning.step * weight.zero_codes.astype(np.float64)
        scale = weight.scale.astype(np.float64)
        parts = [np.ascontiguousarray(ordered).view(np.uint8).ravel()]
        for values in (scale * (kind.meaning.step / 2), scale * first):
            padded = np.pad(values, padding).reshape(self.tiles, FEATURES, -1).transpose(0, 2, 1)
            floats = np.ascontiguousarray(padded, np.float32)
            parts.append(floats.view(np.uint8).ravel())
        return np.concatenate(parts)

    @property
    def _padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return ((0, self.tiles * FEATURES - self.rows), (0, 0))


def lookup_spec(format: str, rows: int, cols: int, tokens: int) -> LookupSpec:
    """What the kernel of a product is made for; NybbleError with the reason if there is none."""
    description = formats.get(format)
    description.check_shape((rows, cols))
    kind = weight_kind(description, cols)
    if not isinstance(kind.meaning, Line) or kind.bits not in ACCEPTED or kind.zero == "minimum":
        raise NybbleError(
            f"'{format}' by lmma", accepted="codes on a line of 1, 2 or 4 bits, without minima"
        )
    if cols % 16 or kind.group % 16:
        raise NybbleError(
            f"{cols} columns in groups of {kind.group} by lmma", accepted="multiples of 16"
        )
    return LookupSpec(description.spec, tokens, rows, cols, kind.bits, kind.group)


def lookup_kernel(spec: LookupSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    number = b.block_id() * WARPS + b.thread().shr(5)
    tiles = b.const(spec.tiles, i32)
    pair, tile = (b.binary(kind, number, tiles) for kind in ("udiv", "urem"))
    with b.if_(pair < spec.pairs):
        LookupTile(b, spec, pair, tile).write()
    return RowKernel(b, spec.parameters, -(-spec.pairs * spec.tiles // WARPS))


class LookupTile:
    """Writes what a warp does: 2 tokens and 64 rows."""

    def __init__(self, b: GpuBuilder, spec: LookupSpec, pair: Value, tile: Value) -> None:
        self.b, self.spec, self.pair, self.tile = b, spec, pair, tile
        self.lane = b.thread() & (LANES - 1)
        self.tables, self.weights, self.y = b.parameters
        self.steps = spec.cols // 16
        self.nothing = b.const(0.0, f32)

    def write(self) -> None:
        """Along the columns, group by group."""
        b, spec = self.b, self.spec
        groups = spec.cols // spec.group
        with b.for_(b.const(0, i32), groups, 1, [self.nothing] * 4) as loop:
            sums = self.of_group(loop.iv * (spec.group // 16))
            factors, addends = (self.of_rows(loop.iv, i) for i in (0, 1))
            made: list[Value] = []
            for index, total in enumerate(loop.args):
                row = index % 2
                total = b.fma(sums[index], factors[row], total)
                made.append(b.fma(sums[4 + index], addends[row], total))
            loop.yield_(*made)
        for index, total in enumerate(loop.results):
            self.put(index // 2, index % 2, total)

    def of_group(self, first: Value) -> list[Value]:
        """Products of odd integers, then sums of activations, of the steps of a group."""
        b, spec = self.b, self.spec
        count = spec.group // 16
        with b.for_(b.const(0, i32), count, 1, [self.nothing] * 8) as loop:
            step = first + loop.iv
            entries = self.word(self.tables, self.pair * self.steps + step)
            place = (self.tile * self.steps + step) * spec.bits
            planes = [self.word(self.weights, place + plane) for plane in range(spec.bits)]
            products = self.look_up(spec.bits, entries, planes, loop.args[:4])
            ones = [b.word(0xFFFFFFFF)]
            loop.yield_(*products, *self.look_up(1, entries, ones, loop.args[4:]))
        return list(loop.results)

    def word(self, pointer: Value, number: Value) -> Value:
        """This lane's word of a row of 32."""
        b = self.b
        return b.load(b.offset(pointer, b.zext(number * LANES + self.lane, i64) * 4), i32)

    def of_rows(self, group: Value, which: int) -> list[Value]:
        """The factors or the addends of this lane's two rows."""
        b, spec = self.b, self.spec
        at = self.tile * (spec.cols // spec.group * FEATURES) + group * FEATURES + self.lane * 2
        start = spec.plane_bytes + which * spec.factor_bytes
        place = b.offset(self.weights, b.zext(at, i64) * 4 + start)
        return b.lanes_of(b.load(place, vec(2, f32)))

    def look_up(
        self, bits: int, entries: Value, planes: list[Value], sums: list[Value]
    ) -> list[Value]:
        """One lmma."""
        names = [f"${index}" for index in range(9 + bits)]
        d, t, w, c = names[:4], names[4], names[5 : 5 + bits], names[5 + bits :]
        groups = ", ".join(f"{{{', '.join(one)}}}" for one in (d, [t], w, c))
        text = f"{Lmma(ENTRY, bits).name} {groups};"
        return self.b.ptx(text, [f32] * 4, [entries, *planes, *sums], effects=True)

    def put(self, more: int, which: int, value: Value) -> None:
        """Write one result, if it exists."""
        b, spec = self.b, self.spec
        token, row = self.pair * ROWS + more, self.tile * FEATURES + self.lane * 2 + which
        with b.if_((token < spec.tokens) & (row < spec.rows)):
            at = b.zext(token, i64) * (spec.rows * 4) + b.zext(row, i64) * 4
            b.store(value, b.offset(self.y, at))
