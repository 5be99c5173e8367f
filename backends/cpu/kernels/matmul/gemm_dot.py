"""Integer dot products of unpacked codes with many rows of integer activations."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, i8, i32
from nybble.backends.cpu.kernels.loops import divisor
from nybble.backends.cpu.kernels.matmul.codes import Codes
from nybble.backends.cpu.kernels.matmul.codes_dot import CodesDot, level_dot
from nybble.backends.cpu.kernels.matmul.elements import FLOATS, WORDS
from nybble.backends.cpu.kernels.matmul.gemm import (
    GemmTiles,
    Product,
    Scratch,
    Sums,
    column_block,
    register_tiles,
)
from nybble.backends.cpu.kernels.matmul.intdot import BITS
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import CodeReader, reader
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TILE


def dot_tiles(spec: MatmulSpec) -> GemmTiles:
    """Sizes by the number of registers: integer sums of tokens and sub-tiles take a half."""
    dot = level_dot(spec)
    room = spec.isa.registers * spec.isa.vector_bits // (2 * BITS)
    pairs = max(1, room // max(dot.accumulators, dot.prepared))
    tokens = min(4, 2 ** (pairs.bit_length() // 2))
    return GemmTiles(
        columns=512, tiles=1, subtiles=divisor(SUBTILES, pairs // tokens), tokens=tokens
    )


@dataclass
class DotProduct(Product):
    """Sums stay i32 within a group of activations, then take both scales."""

    spec: MatmulSpec
    tiles: GemmTiles
    columns: int = field(init=False)

    def __post_init__(self) -> None:
        weight = self.spec.weight
        assert isinstance(weight, Codes)
        self.weight = weight
        self.group = self.spec.activation_group
        self.columns = column_block(self.spec, self.tiles.columns, weight.group)
        self.scales = self.columns // weight.group * TILE
        self.slots = self.tiles.tiles
        self.integers = self.spec.integers
        self.form = level_dot(self.spec)

    def reserve(self, scratch: Scratch) -> None:
        """See Product: codes u8 per slot, then scales and zeros f32 [group][64] per slot.

        Then activations as the dot product wants them, i32 [word][token][column / 4].
        """
        self.codes_at = scratch.take(self.slots * self.columns * TILE)
        self.scales_at = scratch.take(self.slots * self.scales * 4)
        self.zeros_at = scratch.take(self.slots * self.scales * 4 if self.weight.has_zero else 0)
        words = self.form.prepared * self.spec.plane if self.form.prepares else 0
        self.words_at = scratch.take(words)

    def begin(self, b: KernelBuilder, scratch: Buffer) -> None:
        """See Product."""
        self.b = b
        self.dot = CodesDot(b, self.spec, self.form)
        self.codes = scratch.view(i8, self.codes_at, self.slots * self.columns * TILE)
        self.scale = scratch.view(f32, self.scales_at, self.slots * self.scales)
        self.zero = scratch.view(f32, self.zeros_at, self.slots * self.scales)
        q, plane = b.buffer("q"), self.spec.plane
        self.q = [q.view(i32, digit * plane, plane // 4) for digit in range(self.spec.digits)]
        if self.form.prepares:
            places = [self.words_at + i * plane for i in range(self.form.prepared)]
            prepared = [scratch.view(i32, place, plane // 4) for place in places]
            self._prepare(prepared)
            self.q = prepared

    def _prepare(self, prepared: Sequence[Buffer]) -> None:
        """Activations of this call, as the dot product wants them."""
        b, words = self.b, self.spec.cols // 4
        lanes = divisor(words, LANES)
        with b.for_(0, b.n * words, lanes) as loop:
            digits = [q.vload(loop.iv, lanes) for q in self.q]
            for out, value in zip(prepared, self.form.prepare(b, digits), strict=True):
                out.vstore(value, loop.iv)

    def unpack(self, part: int, tile: Value, first: Value, slot: Value) -> None:
        """See Product."""
        b = self.b
        weights = reader(b, self.spec, part, self.tiles.ahead * self.columns)
        assert isinstance(weights, CodeReader)
        size = self.columns * TILE
        weights.unpack_u8(tile, first, self.columns, self.codes.part(slot * size, size))
        with b.for_(0, self.columns // self.weight.group) as group:
            block = weights.block(tile, first // self.weight.group + group.iv)
            for r in range(SUBTILES):
                at = slot * self.scales + group.iv * TILE + r * LANES
                self.scale.vstore(weights.scale(block, r), at)
                if self.weight.has_zero:
                    self.zero.vstore(weights.zero(block, r), at)

    def multiply(self, sums: Sums, first: Value, slots: Value) -> None:
        """See Product."""
        with register_tiles(self.b, self.tiles, slots) as at:
            self._block(sums, first, at)

    def _block(self, sums: Sums, first: Value, at: tuple[Value, Value, Value]) -> None:
        """Some tokens times some sub-tiles, over all columns of the block."""
        b = self.b
        slot, subtile, token = at
        places = [
            sums.at(token + c, slot, subtile + r)
            for c in range(self.tiles.tokens)
            for r in range(self.tiles.subtiles)
        ]
        inits = [sums.buffer.vload(place, LANES) for place in places]
        with b.for_(0, self.columns // self.group, inits=inits) as group:
            dots = self._dots(first, at, group.iv)
            group.yield_(*self._rescale(first, at, group.iv, dots, group.args))
        for place, value in zip(places, group.results, strict=True):
            sums.buffer.vstore(value, place)

    def _group_index(self, token: Value, first: Value, group: Value) -> Value:
        return token * (self.spec.cols // self.group) + first // self.group + group

    def _dots(self, first: Value, at: tuple[Value, Value, Value], group: Value) -> list[Value]:
        """i32 sums of one activation group, token by token and sub-tile by sub-tile."""
        b = self.b
        slot, subtile, token = at
        starts: list[Value] = []
        for c in range(self.tiles.tokens):
            start = b.const(0, WORDS)
            if self.dot.factor:
                z = b.buffer("z").load(self._group_index(token + c, first, group))
                start = b.broadcast(z * self.dot.factor, LANES)
            starts += [start] * self.tiles.subtiles
        inits = [one for start in starts for one in self.dot.start(start)]
        steps = self.group // 4
        unroll = divisor(steps, self.tiles.unroll)
        codes = (slot * self.columns + group * self.group) * TILE + subtile * 64
        words = (token * self.spec.cols + first + group * self.group) // 4
        if unroll == steps:
            sums = self._steps(codes, words, inits, steps)
        else:
            with b.for_(0, steps, unroll, inits=inits) as loop:
                inner = self._steps(codes + loop.iv * 256, words + loop.iv, loop.args, unroll)
                loop.yield_(*inner)
            sums = loop.results
        parts = self._by_pair(sums)
        return [self.dot.total(*pair) for pair in zip(parts, starts, strict=True)]

    def _by_pair(self, sums: Sequence[Value]) -> list[Sequence[Value]]:
        """The sums of each token and sub-tile."""
        count = self.dot.carried
        return [sums[i : i + count] for i in range(0, len(sums), count)]

    def _steps(self, codes: Value, words: Value, sums: Sequence[Value], count: int) -> list[Value]:
        """The sums with some words."""
        b, subtiles = self.b, self.tiles.subtiles
        parts = self._by_pair(sums)
        runs = [self.dot.open(part) for part in parts]
        for step in range(count):
            packed = [
                b.bitcast(self.codes.vload(codes + (step * SUBTILES + r) * 64, 64), WORDS)
                for r in range(subtiles)
            ]
            for c in range(self.tiles.tokens):
                place = words + (c * self.spec.cols // 4 + step)
                x = [b.broadcast(q.load(place), LANES) for q in self.q]
                for r in range(subtiles):
                    self.dot.add(runs[c * subtiles + r], packed[r], [x])
        return [one for run in runs for one in self.dot.close(run)]

    def _rescale(
        self,
        first: Value,
        at: tuple[Value, Value, Value],
        group: Value,
        dots: Sequence[Value],
        sums: Sequence[Value],
    ) -> list[Value]:
        """sums + S * s * unit * dot (+ Z * s * z)."""
        b, subtiles, unit = self.b, self.tiles.subtiles, self.integers.unit
        slot, subtile, token = at
        base = slot * self.scales + group * self.group // self.weight.group * TILE + subtile * LANES
        scales = [self.scale.vload(base + r * LANES, LANES) for r in range(subtiles)]
        zeros = [self.zero.vload(base + r * LANES, LANES) for r in range(subtiles)]
        done: list[Value] = []
        for c in range(self.tiles.tokens):
            index = self._group_index(token + c, first, group)
            s = b.buffer("s").load(index)
            splat = b.broadcast(s if unit == 1.0 else s * unit, LANES)
            shift = b.const(0.0, FLOATS)
            if self.weight.has_zero:
                shift = b.broadcast(s * b.sitofp(b.buffer("z").load(index)), LANES)
            for r in range(subtiles):
                i = c * subtiles + r
                total = b.fma(b.sitofp(dots[i]) * scales[r], splat, sums[i])
                done.append(b.fma(zeros[r], shift, total) if self.weight.has_zero else total)
        return done
