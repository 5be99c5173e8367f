"""Bit planes of weights times many rows of bipolar activations.

Both sides are brought into the form that counting takes once, weights per block of columns and
activations per thread, so that only the exclusive or and the count are left for a pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.buffers import Buffer, BufferSpec
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, i32
from nybble.backends.cpu.kernels.matmul.bitcount import bit_count
from nybble.backends.cpu.kernels.matmul.bitserial import BitserialSpec
from nybble.backends.cpu.kernels.matmul.bitserial_dot import Counting
from nybble.backends.cpu.kernels.matmul.bitserial_weights import PlaneReader
from nybble.backends.cpu.kernels.matmul.gemm import (
    Gemm,
    GemmTiles,
    Product,
    Scratch,
    Sums,
    column_block,
)
from nybble.backends.cpu.tile_layout import TILE


def bit_gemm_tiles(spec: BitserialSpec) -> GemmTiles:
    """Sizes by the number of registers: three quarters of them hold counts.

    They are of one strip of rows, which `subtiles` counts here, and of a power of two of tokens,
    since there is room for a multiple of that.
    """
    weights = spec.weight.bits + spec.bits - 1
    most = max(1, spec.isa.registers * 3 // 4 // weights)
    tokens = 1 << min(8, most).bit_length() - 1
    return GemmTiles(512, tiles=1, subtiles=1, tokens=tokens, unroll=1)


def bit_gemm(spec: BitserialSpec) -> Gemm:
    """The loops of a spec with many tokens."""
    return Gemm(spec, BitProduct(spec, bit_gemm_tiles(spec)))


def lower_bit_gemm(spec: BitserialSpec, name: str) -> FuncOp:
    """The kernel of a spec with many tokens; its buffers are `bit_gemm_buffers(spec)`."""
    return bit_gemm(spec).lower(name)


def bit_gemm_buffers(spec: BitserialSpec) -> list[BufferSpec]:
    """The memref arguments of `lower_bit_gemm`, in order."""
    return spec.buffers(bit_gemm(spec).scratch.size)


@dataclass
class BitProduct(Product):
    """Counts stay in registers within a group, then take both scales."""

    spec: BitserialSpec
    tiles: GemmTiles
    columns: int = field(init=False)

    def __post_init__(self) -> None:
        spec, form = self.spec, bit_count(self.spec.isa)
        self.columns = column_block(spec, self.tiles.columns, spec.weight.group)
        self.groups = self.columns // spec.weight.group
        self.slots = self.tiles.tiles
        self.parts = form.parts
        self.word_size = spec.weight.bits * form.parts * TILE
        self.slot_size = self.groups * spec.words * self.word_size
        self.scales = self.groups * TILE

    def reserve(self, scratch: Scratch) -> None:
        """See Product: words [word][plane][part][64 rows], scales and zeros f32 [group][64] per
        slot, and the activations [token][group][word][plane][part]."""
        spec = self.spec
        self.words_at = scratch.take(self.slots * self.slot_size * 4)
        self.scales_at = scratch.take(self.slots * self.scales * 4)
        self.zeros_at = scratch.take(self.slots * self.scales * 4 if spec.weight.has_zero else 0)
        size = spec.padded * spec.token_words * self.parts if self.parts > 1 else 0
        self.q_at = scratch.take(size * 4)

    def begin(self, b: KernelBuilder, scratch: Buffer) -> None:
        """See Product."""
        spec = self.spec
        self.b, self.counting = b, Counting(b, spec)
        self.lanes = self.counting.lanes
        self.words = scratch.view(i32, self.words_at, self.slots * self.slot_size)
        self.scale = scratch.view(f32, self.scales_at, self.slots * self.scales)
        self.zero = scratch.view(f32, self.zeros_at, self.slots * self.scales)
        self.q = b.buffer("q")
        if self.parts > 1:
            self.q = scratch.view(i32, self.q_at, spec.padded * spec.token_words * self.parts)
            self._split_activations()

    def _split_activations(self) -> None:
        b = self.b
        with b.for_(0, b.n * self.spec.token_words) as word:
            parts = self.counting.form.split(b, b.buffer("q").load(word.iv))
            for i, part in enumerate(parts):
                self.q.store(part, word.iv * self.parts + i)

    def unpack(self, part: int, tile: Value, first: Value, slot: Value) -> None:
        """See Product."""
        b, spec = self.b, self.spec
        reader = PlaneReader(b, b.buffer(f"w{part}"), spec.layouts[part], self.lanes, ahead=0)
        with b.for_(0, self.groups) as group:
            block = reader.block(tile, first // spec.weight.group + group.iv)
            words = slot * self.slot_size + group.iv * (spec.words * self.word_size)
            with b.for_(0, spec.words) as word:
                self._split_word(reader, block, word.iv, words + word.iv * self.word_size)
            for r in range(TILE // self.lanes):
                at = slot * self.scales + group.iv * TILE + r * self.lanes
                self.scale.vstore(reader.scale(block, r * self.lanes), at)
                if spec.weight.has_zero:
                    self.zero.vstore(reader.scale(block, r * self.lanes, 1), at)

    def _split_word(self, reader: PlaneReader, block: Value, word: Value, at: Value) -> None:
        for plane in range(self.spec.weight.bits):
            for r in range(TILE // self.lanes):
                parts = self.counting.form.split(self.b, reader.word(block, word, plane, 0, r))
                for i, part in enumerate(parts):
                    offset = (plane * self.parts + i) * TILE + r * self.lanes
                    self.words.vstore(part, at + offset)

    def multiply(self, sums: Sums, first: Value, slots: Value) -> None:
        """See Product."""
        b, tiles = self.b, self.tiles
        with (
            b.for_(0, slots) as slot,
            b.for_(0, TILE, tiles.subtiles * self.lanes) as row,
            b.for_(0, b.n, tiles.tokens) as token,
        ):
            self._block(sums, first, (slot.iv, row.iv, token.iv))

    def _block(self, sums: Sums, first: Value, at: tuple[Value, Value, Value]) -> None:
        """Some tokens times some strips of rows, over all columns of the block."""
        b = self.b
        slot, row, token = at
        places = [
            sums.at(token + c, slot, 0) + row + r * self.lanes
            for c in range(self.tiles.tokens)
            for r in range(self.tiles.subtiles)
        ]
        inits = [sums.buffer.vload(place, self.lanes) for place in places]
        with b.for_(0, self.groups, inits=inits) as group:
            differing = self._differing(first, at, group.iv)
            group.yield_(*self._rescale(first, at, group.iv, differing, group.args))
        for place, value in zip(places, group.results, strict=True):
            sums.buffer.vstore(value, place)

    def _differing(self, first: Value, at: tuple[Value, Value, Value], group: Value) -> list[Value]:
        """i32 weighted counts of one group, token by token and strip by strip."""
        b, spec, counting, form = self.b, self.spec, self.counting, self.counting.form
        slot, row, token = at
        base = slot * self.slot_size + group * (spec.words * self.word_size) + row
        step = spec.bits * self.parts
        q = (first // spec.weight.group + group) * (spec.words * step)
        tokens = [
            (token + c) * (spec.token_words * self.parts) + q for c in range(self.tiles.tokens)
        ]

        def weight(word: Value, plane: int, strip: int) -> list[Value]:
            places = range(plane * self.parts, (plane + 1) * self.parts)
            start = base + word * self.word_size + strip * self.lanes
            return [self.words.vload(start + place * TILE, self.lanes) for place in places]

        def activation(word: Value, plane: int, start: Value) -> list[Value]:
            places = range(plane * self.parts, (plane + 1) * self.parts)
            words = [self.q.load(start + word * step + place) for place in places]
            return [b.broadcast(one, self.lanes) for one in words]

        def count(word: Value, counts: Sequence[Value]) -> list[Value]:
            w = [
                [weight(word, i, r) for i in range(spec.weight.bits)]
                for r in range(self.tiles.subtiles)
            ]
            added: list[Value] = []
            for start in tokens:
                x = [activation(word, j, start) for j in range(spec.bits)]
                for strip in w:
                    mine = counts[len(added) : len(added) + counting.weights]
                    added += counting.pairs(
                        mine, lambda i, j, w=strip, x=x: form.count(b, differ(w[i], x[j]))
                    )
            return added

        return counting.sums(len(tokens) * self.tiles.subtiles, self.tiles.unroll, count)

    def _rescale(
        self,
        first: Value,
        at: tuple[Value, Value, Value],
        group: Value,
        differing: Sequence[Value],
        sums: Sequence[Value],
    ) -> list[Value]:
        """sums + S * s * product (+ Z * s * z)."""
        b, weight, strips = self.b, self.spec.weight, self.tiles.subtiles
        slot, row, token = at
        base = slot * self.scales + group * TILE + row
        scales = [self.scale.vload(base + r * self.lanes, self.lanes) for r in range(strips)]
        zeros = [self.zero.vload(base + r * self.lanes, self.lanes) for r in range(strips)]
        done: list[Value] = []
        for c in range(self.tiles.tokens):
            index = (token + c) * self.spec.groups + first // weight.group + group
            s = b.buffer("s").load(index)
            factor, start = b.broadcast(s * weight.unit, self.lanes), self.counting.start(index)
            for r in range(strips):
                i = c * strips + r
                product = self.counting.product(differing[i], start)
                total = b.fma(product * scales[r], factor, sums[i])
                if weight.has_zero:
                    shift = b.broadcast(s * b.sitofp(b.buffer("z").load(index)), self.lanes)
                    total = b.fma(zeros[r], shift, total)
                done.append(total)
        return done


def differ(left: Sequence[Value], right: Sequence[Value]) -> list[Value]:
    """The bits that differ, part by part."""
    return [one ^ other for one, other in zip(left, right, strict=True)]
