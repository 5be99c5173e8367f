"""Reading packed codes inside a kernel: vectors of codes, scales and decoded columns.

Where an integer product wants them, `unpack_u8` rewrites a block of whole groups of one tile into
scratch as `[column / 4][sub-tile][16 rows][4 columns]` bytes; see `weight_reader` for floats.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nybble.backends.cpu.float_bytes import FLOAT_BYTES
from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import (
    KernelBuilder,
    Value,
    i32,
)
from nybble.backends.cpu.kernels.loops import divisor
from nybble.backends.cpu.kernels.matmul.codes import Codes, Integers, Table
from nybble.backends.cpu.kernels.matmul.elements import (
    BYTES,
    WORDS,
    element,
    looked_up_bytes,
    one_of,
)
from nybble.backends.cpu.kernels.matmul.expand import codes_of
from nybble.backends.cpu.kernels.matmul.lut_spec import LutSpec
from nybble.backends.cpu.kernels.matmul.plain_weights import DenseReader, SplitReader
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weight_reader import WeightReader, floats
from nybble.backends.cpu.split_floats import SplitLayout
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TILE, VECTOR, DenseLayout, TileLayout

UNROLL_COLUMNS = 32


@dataclass(frozen=True)
class Block:
    """A group of a tile: the byte where it starts, and where what it shares with others does."""

    at: Value
    shared: Value


class CodeReader(WeightReader):
    """A weight in a TileLayout.

    ahead: bytes between a line that is read and the one that is prefetched; 0 for no prefetch.
    """

    def __init__(
        self,
        b: KernelBuilder,
        buffer: Buffer,
        layout: TileLayout,
        spec: MatmulSpec | LutSpec,
        ahead: int,
    ):
        super().__init__(b, buffer)
        assert isinstance(spec.weight, Codes)
        self.layout = layout
        self.weight = spec.weight
        self.isa = spec.isa
        self.element = element(b, spec.weight, spec.isa)
        self.step = divisor(layout.group, UNROLL_COLUMNS, layout.step)
        self.ahead = ahead

    def block(self, tile: Value, group: Value) -> Block:
        """A group of a tile."""
        layout = self.layout
        start = tile * layout.tile_bytes
        if layout.tree is None:
            at = start + group * layout.block_bytes
            return Block(at, at)
        run = start + group // layout.count * layout.run_bytes
        at = run + group % layout.count * layout.block_bytes
        return Block(at, run + layout.count * layout.block_bytes)

    def place(self, block: Block, column: Value) -> Value:
        """Byte where the codes from a column of a group (a multiple of a step) on start."""
        if self.step == self.layout.group:
            return block.at
        steps = column % self.layout.group // self.layout.step
        return block.at + steps * self.layout.step_bytes

    def word(self, at: Value, piece: int, vector: int, subtile: int) -> Value:
        """A packed vector of a piece in the step at a byte, as i32 lanes, one per row."""
        offset = self.layout.piece(piece) + (vector * SUBTILES + subtile) * VECTOR
        return self.b.bitcast(self._load(at, offset, VECTOR), WORDS)

    def codes(self, at: Value, subtile: int) -> Iterator[Value]:
        """The step at a byte, 4 columns at a time, as i32 lanes whose bytes are codes."""

        def word(piece: int, vector: int) -> Value:
            return self.word(at, piece, vector, subtile)

        yield from codes_of(self.b, self.layout, self.weight.zero_code, self.isa, word)

    def scale(self, block: Block, subtile: int) -> Value:
        """Scales of a sub-tile as f32 lanes."""
        small = self.small_scale(block, subtile)
        return small if self.layout.tree is None else small * self.shared(block, subtile)

    def zero(self, block: Block, subtile: int) -> Value:
        """Zeros of a sub-tile as f32 lanes."""
        small = self.small_zero(block, subtile)
        if self.layout.integer_zero:
            return -(self.scale(block, subtile) * small)
        return small if self.layout.tree is None else small * self.shared(block, subtile, 1)

    def small_scale(self, block: Block, subtile: int) -> Value:
        """What a group itself has of its scales: all of them, unless they are a tree."""
        tree, start = self.layout.tree, self.layout.code_bytes
        if self.layout.by_subtile:
            return self._affine(block, subtile, 0)
        if tree is None:
            return self._floats(block.at, start, subtile)
        return self._bytes(block.at, start, subtile, tree.offset)

    def small_zero(self, block: Block, subtile: int) -> Value:
        """What a group itself has of its zeros."""
        tree, start = self.layout.tree, self.layout.zero
        if self.layout.by_subtile:
            return -(self._affine(block, subtile, 0) * self._affine(block, subtile, 1))
        if self.layout.integer_zero:
            return self._bytes(block.at, start, subtile, 0)
        if tree is None:
            return self._floats(block.at, start, subtile)
        return self._bytes(block.at, start, subtile, tree.zero_offset)

    def shared(self, block: Block, subtile: int, kind: int = 0) -> Value:
        """The floats that groups share: of scales (kind 0), of zeros (kind 1)."""
        return self._floats(block.shared, kind * self.layout.float_bytes, subtile)

    def _affine(self, block: Block, subtile: int, kind: int) -> Value:
        """`base * c + low` of scales (kind 0) or zero points (kind 1) under shared floats."""
        b, layout = self.b, self.layout
        both = b.zext(self._load(block.at, layout.code_bytes + subtile * LANES, LANES), i32)
        small = both.shr(4) if kind else both & 15
        span = layout.subtile_floats * FLOAT_BYTES[layout.scale]
        shared = floats(b, self._load(block.at, layout.zero + subtile * span, span), layout.scale)
        base, low = (b.broadcast(b.extract(shared, 2 * kind + i), LANES) for i in (0, 1))
        return b.sitofp(small) * base + low

    def _floats(self, at: Value, start: int, subtile: int) -> Value:
        span = self.layout.float_bytes // SUBTILES
        return floats(self.b, self._load(at, start + subtile * span, span), self.layout.scale)

    def _bytes(self, at: Value, start: int, subtile: int, offset: int) -> Value:
        small = self.b.zext(self._load(at, start + subtile * LANES, LANES), i32)
        return self.b.sitofp(small - offset if offset else small)

    def chosen(self, block: Block, subtile: int, values: Sequence[float]) -> Value:
        """The special values (f32 lanes) or levels (whole numbers: i32 lanes) of a sub-tile."""
        choice = self._load(block.at, self.layout.choice + subtile * LANES, LANES)
        return one_of(self.b, values, self.b.zext(choice, i32))

    def _load(self, block: Value, offset: int, size: int) -> Value:
        if self.ahead and offset % VECTOR == 0:
            self.w.prefetch(block + (offset + self.ahead))
        return self.w.vload(block + offset, size)

    def elements(
        self, block: Block, at: Value, subtile: int, count: int
    ) -> Iterator[tuple[int, list[Value]]]:
        """T of `count` columns from the byte `at` in a block on, 4 columns at a time.

        Yields the offset of a column from the first and f32 lanes for it and three more.
        """
        layout, chosen = self.layout, None
        if isinstance(self.weight.table, Table) and self.weight.has_choice:
            chosen = self.chosen(block, subtile, self.weight.table.specials)
        for step in range(count // layout.step):
            words = self.codes(at + step * layout.step_bytes, subtile)
            for index, word in enumerate(words):
                values = [self.element.at(word, 8 * j, chosen) for j in range(4)]
                yield step * layout.step + 4 * index, values

    def columns(self, tile: Value, first: Value, subtile: int) -> Iterator[tuple[int, list[Value]]]:
        """See WeightReader: `S * T(c) + Z`, with one rounding after the product."""
        b, layout = self.b, self.layout
        block = self.block(tile, first // layout.group)
        scale = self.scale(block, subtile)
        zero = self.zero(block, subtile) if layout.has_zero else None
        for offset, values in self.elements(block, self.place(block, first), subtile, self.step):
            if zero is None:
                yield offset, [scale * value for value in values]
            else:
                yield offset, [b.fma(scale, value, zero) for value in values]

    def levels(self, block: Block, at: Value, subtile: int) -> Iterator[Value]:
        """The levels of the step at a byte (see Integers), 4 columns at a time, as i32 lanes."""
        integers = self.weight.integers
        assert integers is not None
        for word in self.codes(at, subtile):
            yield self._levels(block, subtile, word, integers)

    def _levels(self, block: Block, subtile: int, word: Value, integers: Integers) -> Value:
        b = self.b
        if not integers.levels:
            return word
        found = looked_up_bytes(b, self.isa.byte_shuffle, integers.levels, word)
        if integers.specials:
            assert isinstance(self.weight.table, Table)
            level = self.chosen(block, subtile, integers.specials) * 0x01010101
            special = b.bitcast(word, BYTES).eq(self.weight.table.special)
            found = b.select(special, b.bitcast(level, BYTES), found)
        return b.bitcast(found, WORDS)

    def unpack_u8(self, tile: Value, first: Value, count: int, out: Buffer) -> None:
        """Levels of columns `first .. first + count` of a tile as bytes."""
        b, layout = self.b, self.layout
        with b.for_(0, count, self.step) as loop:
            column = first + loop.iv
            block = self.block(tile, column // layout.group)
            codes = self.place(block, column)
            for step in range(self.step // layout.step):
                for r in range(SUBTILES):
                    words = self.levels(block, codes + step * layout.step_bytes, r)
                    for index, word in enumerate(words):
                        to = loop.iv + (step * layout.step + 4 * index)
                        out.vstore(b.bitcast(word, BYTES), to * TILE + r * VECTOR)


def reader(b: KernelBuilder, spec: MatmulSpec, part: int, columns: int = 0) -> WeightReader:
    """The reader of a part's weight; it prefetches what lies `columns` ahead (0: nothing)."""
    layout = spec.layouts[part]
    buffer = b.buffer(f"w{part}")
    if isinstance(layout, DenseLayout):
        return DenseReader(b, buffer, layout)
    if isinstance(layout, SplitLayout):
        return SplitReader(b, buffer, layout, spec.isa)
    ahead = columns // layout.group * layout.block_bytes
    return CodeReader(b, buffer, layout, spec, ahead)
