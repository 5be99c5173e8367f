"""Products by `lmma`, see `gpu.lookup`: tables of activations, and bit planes of weights.

A warp has some pairs of tokens and some tiles of 64 rows of the weight, and goes along the columns:
tables serve all of its tiles, and planes all of its pairs. Sums of a group are of odd integers; the
scale of the group makes results of them. What a code means beyond its odd integer is the same for
all codes of a group, and is multiplied with the sum of the activations: that is what weights whose
bits are all set give, so `lmma` counts it, too. Codes that mean no more (one bit: -1 or 1) have no
such sums.
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
from nybble.backends.gpu.lookup import DEPTHS, ENTRIES, FEATURES, ROWS, WIDTH, Lmma
from nybble.backends.gpu.packing.kind import Line, weight_kind
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import Weight

LANES = 32
ENTRY = "f16"
DEPTH = DEPTHS[ENTRY]
"""Columns of a step."""
ACCEPTED = (1, 2, 4)
"""Bits of a weight."""
MOST_PAIRS, MOST_TILES = (4, 2, 1), 2
"""Of a warp: 32 sums of a lane, and as many of a group."""


@dataclass(frozen=True)
class TablesSpec(RowSpec):
    """tables f16 [tokens / 2, cols / 16, 2, 4, 8] of x [tokens, cols]; of no token zeros.

    source: "f32" or "f16", the type of x.
    """

    tokens: int
    cols: int
    source: str = "f32"

    @property
    def name(self) -> str:
        """See RowSpec."""
        return f"tables_{self.tokens}x{self.cols}" + "_f16" * (self.source == "f16")

    @property
    def numbers(self) -> int:
        """Entries of all tables."""
        return -(-self.tokens // ROWS) * ROWS * self.cols // WIDTH * ENTRIES

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """x, tables."""
        x = buffer("x", self.source, Access.READ, self.tokens, self.cols)
        return (x, buffer("tables", ENTRY, Access.WRITE, 1, self.numbers))


def tables_kernel(spec: TablesSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a thread for each entry."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    x = Rows(b, b.parameters[0], spec.source, spec.cols)
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
    """y [tokens, rows] of tables of activations, and of weights of `bits` bits in groups.

    has_addends: whether codes mean more than their odd integers. pairs, tiles: of a warp. output:
    "f32" or "f16", the type of y.
    """

    format: str
    tokens: int
    rows: int
    cols: int
    bits: int
    group: int
    has_addends: bool
    warp_pairs: int = 1
    warp_tiles: int = 1
    output: str = "f32"

    @property
    def name(self) -> str:
        """See RowSpec."""
        return f"lmma_w{self.bits}_{self.tokens}x{self.rows}x{self.cols}"

    @property
    def steps(self) -> int:
        """Steps of 16 columns."""
        return self.cols // DEPTH

    @property
    def parts(self) -> tuple[int, int]:
        """Into how many warps' tokens, and rows, the result is divided."""
        return -(-self.pairs // self.warp_pairs), -(-self.tiles // self.warp_tiles)

    @property
    def warps(self) -> int:
        """Of all blocks."""
        return self.parts[0] * self.parts[1]

    @property
    def tensor_cycles(self) -> float:
        """Cycles of one multiprocessor in which its arrays look up, were it alone; see `Lmma`."""
        ones = Lmma(ENTRY, 1).cycles / self.warp_tiles if self.has_addends else 0.0
        each = Lmma(ENTRY, self.bits).cycles + ones
        return self.warps * self.warp_pairs * self.warp_tiles * self.steps * each

    @property
    def loaded_bytes(self) -> int:
        """Bytes of tables and planes that all warps load, of whatever memory."""
        word = 4 * LANES
        return self.warps * self.steps * word * (self.warp_pairs + self.bits * self.warp_tiles)

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
    def weight_bytes(self) -> int:
        """Bytes of packed weights."""
        return self.plane_bytes + (2 if self.has_addends else 1) * self.factor_bytes

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """tables, w, y."""
        numbers = TablesSpec(self.tokens, self.cols).numbers
        return (
            buffer("tables", ENTRY, Access.READ, 1, numbers),
            Parameter("w", "u8", Access.READ, self.weight_bytes),
            buffer("y", self.output, Access.WRITE, self.tokens, self.rows),
        )

    def pack(self, weight: Weight) -> npt.NDArray[np.uint8]:
        """The bytes of a weight [rows, cols]: planes [tile, step of 16 columns, plane, row], then
        factors [tile, group, row], and addends if there are any: it is factor * odd integer +
        addend."""
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
        first = beyond(kind.meaning, self.bits)
        if weight.zero_codes is not None:
            first = first - kind.meaning.step * weight.zero_codes.astype(np.float64)
        scale = weight.scale.astype(np.float64)
        parts = [np.ascontiguousarray(ordered).view(np.uint8).ravel()]
        numbers = (scale * (kind.meaning.step / 2), scale * first)
        for values in numbers if self.has_addends else numbers[:1]:
            padded = np.pad(values, padding).reshape(self.tiles, FEATURES, -1).transpose(0, 2, 1)
            floats = np.ascontiguousarray(padded, np.float32)
            parts.append(floats.view(np.uint8).ravel())
        return np.concatenate(parts)

    @property
    def _padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return ((0, self.tiles * FEATURES - self.rows), (0, 0))


def beyond(line: Line, bits: int) -> float:
    """What a code means beyond half a step of its odd integer."""
    return line.first + line.step * (2**bits - 1) / 2


def amplitudes(format: str, weight: Weight) -> npt.NDArray[np.float64]:
    """f64 [rows, cols]: how much an entry of a table may count for a weight, at most."""
    cols = weight.shape[1]
    kind = weight_kind(formats.get(format), cols)
    assert isinstance(kind.meaning, Line)
    first = beyond(kind.meaning, kind.bits)
    if weight.zero_codes is not None:
        first = first - kind.meaning.step * weight.zero_codes.astype(np.float64)
    half = kind.meaning.step * (2**kind.bits - 1) / 2
    groups = np.abs(weight.scale.astype(np.float64)) * (half + np.abs(first))
    return np.repeat(groups, cols // groups.shape[1], axis=1)


def lookup_spec(format: str, rows: int, cols: int, tokens: int, output: str = "f32") -> LookupSpec:
    """What the kernel of a product is made for; NybbleError with the reason if there is none.

    output: "f32" or "f16", the type of results.
    """
    description = formats.get(format)
    description.check_shape((rows, cols))
    kind = weight_kind(description, cols)
    is_line = isinstance(kind.meaning, Line) and kind.bits in ACCEPTED
    if not is_line or kind.zero == "minimum" or kind.outliers:
        raise NybbleError(
            f"'{format}' by lmma",
            accepted="codes on a line of 1, 2 or 4 bits, without minima and outliers",
        )
    if cols % 16 or kind.group % 16:
        raise NybbleError(
            f"{cols} columns in groups of {kind.group} by lmma", accepted="multiples of 16"
        )
    assert isinstance(kind.meaning, Line)
    has_addends = bool(kind.zero) or beyond(kind.meaning, kind.bits) != 0
    pairs = next(one for one in MOST_PAIRS if one <= -(-tokens // ROWS))
    tiles = MOST_TILES if pairs == MOST_PAIRS[0] and rows > FEATURES else 1
    return LookupSpec(
        description.spec, tokens, rows, cols, kind.bits, kind.group, has_addends, pairs, tiles,
        output,
    )  # fmt: skip


def lookup_kernel(spec: LookupSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own."""
    b = GpuBuilder(name or spec.name, spec.parameters)
    number = b.block_id() * WARPS + b.thread().shr(5)
    each = b.const(spec.parts[1], i32)
    pair, tile = (b.binary(kind, number, each) for kind in ("udiv", "urem"))
    with b.if_(number < spec.warps):
        LookupWarp(b, spec, pair * spec.warp_pairs, tile * spec.warp_tiles).write()
    return RowKernel(b, spec.parameters, -(-spec.warps // WARPS))


class LookupWarp:
    """Writes what a warp does: its pairs of tokens and tiles of rows, from these on.

    Places are [pair][tile]; of those that do not exist, which the last ones may be, the last that
    exists is computed again and nothing is written. Sums of a place are [token, row] of the lane.
    """

    def __init__(self, b: GpuBuilder, spec: LookupSpec, pair: Value, tile: Value) -> None:
        self.b, self.spec = b, spec
        self.lane = b.thread() & (LANES - 1)
        self.tables, self.weights, y = b.parameters
        self.y = Rows(b, y, spec.output, spec.rows)
        self.nothing = b.const(0.0, f32)
        self.pairs = [pair + index for index in range(spec.warp_pairs)]
        self.tiles = [tile + index for index in range(spec.warp_tiles)]
        self.known_pairs = [b.min(one, spec.pairs - 1) for one in self.pairs]
        self.known_tiles = [b.min(one, spec.tiles - 1) for one in self.tiles]
        self.places = [(p, t) for p in range(spec.warp_pairs) for t in range(spec.warp_tiles)]

    def write(self) -> None:
        """Along the columns, group by group."""
        b, spec = self.b, self.spec
        groups, count = spec.cols // spec.group, 4 * len(self.places)
        with b.for_(b.const(0, i32), groups, 1, [self.nothing] * count) as loop:
            products, ones = self.of_group(loop.iv * (spec.group // DEPTH))
            numbers = [self.of_rows(loop.iv, tile) for tile in self.known_tiles]
            made: list[Value] = []
            for place, (pair, tile) in enumerate(self.places):
                for index in range(4):
                    factor, *addend = (one[index % 2] for one in numbers[tile])
                    at = 4 * place + index
                    total = b.fma(products[at], factor, loop.args[at])
                    for more in addend:
                        total = b.fma(ones[4 * pair + index], more, total)
                    made.append(total)
            loop.yield_(*made)
        for place, (pair, tile) in enumerate(self.places):
            for index in range(4):
                value = loop.results[4 * place + index]
                self.put(self.pairs[pair], self.tiles[tile], index, value)

    def of_group(self, first: Value) -> tuple[list[Value], list[Value]]:
        """Products of odd integers of all places, and sums of activations of all pairs, if they
        are needed, of the steps of a group."""
        b, spec = self.b, self.spec
        count = 4 * len(self.places)
        more = 4 * spec.warp_pairs if spec.has_addends else 0
        start = [self.nothing] * (count + more)
        with b.for_(b.const(0, i32), spec.group // DEPTH, 1, start) as loop:
            step = first + loop.iv
            tables = [self.word(self.tables, one * spec.steps + step) for one in self.known_pairs]
            planes = [self.planes(one, step) for one in self.known_tiles]
            made: list[Value] = []
            for place, (pair, tile) in enumerate(self.places):
                sums = loop.args[4 * place : 4 * place + 4]
                made += self.look_up(spec.bits, tables[pair], planes[tile], sums)
            set_bits = [b.word(0xFFFFFFFF)]
            for pair in range(more // 4):
                sums = loop.args[count + 4 * pair : count + 4 * pair + 4]
                made += self.look_up(1, tables[pair], set_bits, sums)
            loop.yield_(*made)
        return list(loop.results[:count]), list(loop.results[count:])

    def planes(self, tile: Value, step: Value) -> list[Value]:
        """This lane's words of all planes."""
        place = (tile * self.spec.steps + step) * self.spec.bits
        return [self.word(self.weights, place + plane) for plane in range(self.spec.bits)]

    def word(self, pointer: Value, number: Value) -> Value:
        """This lane's word of a row of 32."""
        b = self.b
        return b.load(b.offset(pointer, b.zext(number * LANES + self.lane, i64) * 4), i32)

    def of_rows(self, group: Value, tile: Value) -> list[list[Value]]:
        """The factors, and the addends if there are any, of this lane's two rows of a tile."""
        b, spec = self.b, self.spec
        at = tile * (spec.cols // spec.group * FEATURES) + group * FEATURES + self.lane * 2
        kinds = 2 if spec.has_addends else 1
        starts = [spec.plane_bytes + kind * spec.factor_bytes for kind in range(kinds)]
        places = [b.offset(self.weights, b.zext(at, i64) * 4 + start) for start in starts]
        return [list(b.lanes_of(b.load(place, vec(2, f32)))) for place in places]

    def look_up(
        self, bits: int, entries: Value, planes: list[Value], sums: list[Value]
    ) -> list[Value]:
        """One lmma."""
        names = [f"${index}" for index in range(9 + bits)]
        d, t, w, c = names[:4], names[4], names[5 : 5 + bits], names[5 + bits :]
        groups = ", ".join(f"{{{', '.join(one)}}}" for one in (d, [t], w, c))
        text = f"{Lmma(ENTRY, bits).name} {groups};"
        return self.b.ptx(text, [f32] * 4, [entries, *planes, *sums], effects=True)

    def put(self, pair: Value, tile: Value, index: int, value: Value) -> None:
        """Write one result, if it exists."""
        b, spec = self.b, self.spec
        token, row = pair * ROWS + index // 2, tile * FEATURES + self.lane * 2 + index % 2
        with b.if_((token < spec.tokens) & (row < spec.rows)):
            self.y.write(token, row, value)
