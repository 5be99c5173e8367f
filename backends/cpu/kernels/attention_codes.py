"""Tiles of an attention whose keys and values are codes: read as they lie, or staged as f32.

With keys `s[d] c[d] + z[d]` and values `s[t] c[t] + z[t]` the scales go to what codes are
multiplied by, once for a group of codes, and the minima become one number for a row:

    q . k = sum((q[d] s[d]) c[d]) + sum(q[d] z[d])
    sum(p[t] v[t]) = sum((p[t] s[t]) c[t]) + sum(p[t] z[t])

so that a code costs its extraction, a conversion and the product. A tile of many rows has its
blocks decoded to the scratch instead, where every row reads them.
"""

from math import gcd

from nybble.backends.cpu.kernels.attention_ahead import SECOND_CACHE
from nybble.backends.cpu.kernels.attention_shape import TileShape
from nybble.backends.cpu.kernels.attention_tile import Tile
from nybble.backends.cpu.kernels.builder import KernelBuilder, Operand, Value, f32, i32, vec
from nybble.backends.cpu.kernels.kv import KEY_BLOCK
from nybble.backends.cpu.kernels.kv_correct import Corrections
from nybble.backends.cpu.kernels.kv_pages import KvPages
from nybble.backends.cpu.kernels.loops import RowLanes, across
from nybble.dialects.sparse_attn.kv import KEYS, SIDES

_VECTOR = vec(KEY_BLOCK, f32)


class Codes:
    """Reads the codes of a cache."""

    def __init__(self, b: KernelBuilder, pages: KvPages) -> None:
        self.b, self.pages = b, pages

    def scales(self, name: str, at: Value, minima: int) -> tuple[Value, Value]:
        """16 scales and minima of "k" or "v", f32; the minima are so far from the scales."""
        source = self.b.buffer(f"{name}_scales")
        scale, minimum = (source.vload(one, KEY_BLOCK) for one in (at, at + minima))
        return self.b.to_float(scale), self.b.to_float(minimum)

    def scale(self, name: str, at: Value, minima: int) -> tuple[Value, Value]:
        """One scale and minimum, each as a vector."""
        b, source = self.b, self.b.buffer(f"{name}_scales")
        scale, minimum = (b.to_float(source.load(one)) for one in (at, at + minima))
        return b.broadcast(scale, KEY_BLOCK), b.broadcast(minimum, KEY_BLOCK)

    def words(self, side: str, at: Value) -> Value:
        """The lanes of codes of "k" or "v" from an index on, i32."""
        return self.b.buffer(f"{side}_codes").view(i32).vload(at, KEY_BLOCK)

    def prefetch(self, side: str, at: Value) -> None:
        """Ask for such lanes."""
        self.b.buffer(f"{side}_codes").view(i32).prefetch(at, SECOND_CACHE)

    def number(self, words: Value, number: int) -> Value:
        """The codes of this number of a span, f32."""
        return self.b.sitofp(self.pages.code(words, number))


class CodedTile(Tile):
    """A tile of few rows: codes are read where they are used."""

    queries, weights = "folded_q", "folded_s"

    def __init__(
        self, b: KernelBuilder, shape: TileShape, softcap_log2: float | None, pages: KvPages
    ) -> None:
        super().__init__(b, shape, softcap_log2)
        self.pages, self.codes = pages, Codes(b, pages)
        self.components = pages.span
        self._words: list[Value] = []
        self.key_vectors = gcd(shape.key_vectors, len(self.key_runs()[0]))
        self.value_vectors = gcd(shape.value_vectors, len(self.value_runs()[0]))

    @property
    def in_strips(self) -> bool:
        """Not: codes of all components of a value are few lines."""
        return False

    def key_runs(self) -> list[range]:
        """Groups of keys, as far as a block has them."""
        size = min(self.pages.format.key_group, self.shape.key_block)
        starts = range(0, self.shape.key_block, size)
        return [range(start, start + size, KEY_BLOCK) for start in starts]

    def value_runs(self) -> list[range]:
        """Groups of components."""
        size = self.pages.value_group
        starts = range(0, self.pages.head_dim, size)
        return [range(start, start + size, KEY_BLOCK) for start in starts]

    def fold_query(self, first_key: Value) -> None:
        """Queries times scales, and their sums times minima."""
        pages, width = self.pages, self.pages.head_dim
        base = pages.key_scales(self.head, first_key // pages.format.key_group)
        with self.b.for_(0, self.shape.rows, self.shape.few_rows) as rows:
            offsets = range(0, width, KEY_BLOCK)
            scales = [self.codes.scales("k", base + offset, width) for offset in offsets]
            self._fold(rows.iv, "q", width, scales)

    def fold_weights(self, first_key: Value, component: int) -> None:
        """Weights times scales, and their sums times minima."""
        pages, block = self.pages, self.shape.key_block
        base = pages.value_scales(self.head, component // pages.value_group, first_key)
        with self.b.for_(0, self.shape.rows, self.shape.few_rows) as rows:
            offsets = range(0, block, KEY_BLOCK)
            scales = [self.codes.scales("v", base + offset, pages.padded) for offset in offsets]
            self._fold(rows.iv, "s", block, scales)

    def _fold(
        self, first_row: Value, part: str, width: int, scales: list[tuple[Value, Value]]
    ) -> None:
        """Numbers of a few rows from the first on, times scales; `width` of them are a row."""
        b, scratch, totals = self.b, self.scratch, []
        for r in range(self.shape.few_rows):
            total = b.const(0.0, _VECTOR)
            for index, (scale, minimum) in enumerate(scales):
                place = (first_row + r) * width + index * KEY_BLOCK
                value = scratch.vload(self.at(part, place), KEY_BLOCK)
                scratch.vstore(value * scale, self.at(f"folded_{part}", place))
                total = b.fma(value, minimum, total)
            totals.append(total)
        self._keep_rows("offset", first_row, across(b, totals, lambda x, y: x + y))

    def _keep_rows(self, part: str, first_row: Value, numbers: Value) -> None:
        lanes = RowLanes(self.b, self.shape.few_rows, KEY_BLOCK)
        lanes.store(numbers, self.scratch, self.at(part, first_row))

    def _offsets(self, row: Value, count: int) -> list[Value]:
        rows = (self.at("offset", row + r) for r in range(count))
        return [self.b.broadcast(self.scratch.load(one), KEY_BLOCK) for one in rows]

    def score_start(self, row: Value) -> list[Value]:
        """The minima's share of the scores."""
        offsets = self._offsets(row, self.shape.row_tile)
        return [one for one in offsets for _ in range(self.key_vectors)]

    def output_added(self, row: Value) -> list[Value]:
        """The minima's share of these components."""
        return self._offsets(row, self.value_rows)

    def key_words(self, first_key: Value, component: Value, block: int) -> Value:
        """Where the lanes of 16 keys of vector `block` lie that hold a component."""
        return self.pages.key_words(self.head, first_key // KEY_BLOCK + block, component)

    def prefetch(self, side: str, at: Value) -> None:
        """Ask for what the next block has where this one has lanes."""
        block = self.shape.key_block * self.pages.head_dim // self.pages.span
        self.codes.prefetch(side, at + self.asked.blocks * block)

    def prefetch_values(self, first_key: Value, offset: int, number: Value) -> None:
        """Ask for lanes of the next block as they lie, where the lanes of a column are read.

        number: of the lanes in the column of `value_vectors` vectors from a component on.
        """
        column = offset // KEY_BLOCK * (self.shape.key_block // self.pages.span)
        first = self.pages.value_words(self.head, first_key, 0) + column * KEY_BLOCK
        for vector in range(self.value_vectors):
            self.prefetch("v", first + (number * self.value_vectors + vector) * KEY_BLOCK)

    def read_keys(self, first_key: Value, component: Value, block: int, turn: int) -> list[Value]:
        """Codes of keys, f32."""
        if turn == 0:
            blocks = range(block, block + self.key_vectors)
            places = [self.key_words(first_key, component, one) for one in blocks]
            self._words = [self.codes.words("k", place) for place in places]
            for place in places:
                self.prefetch("k", place)
        return [self.codes.number(one, turn) for one in self._words]

    def key_loops(self, keys: Value) -> list[tuple[Value, Value, int]]:
        """All keys, a span at once: pages with codes are whole."""
        block = self.shape.key_block
        return [(self.b.const(0), self.b.const(block), self.pages.span)]

    def read_values(self, first_key: Value, key: Value, offset: Operand, turn: int) -> list[Value]:
        """Codes of values, f32."""
        assert isinstance(offset, int), "codes are not read in strips"
        if turn == 0:
            vectors = range(offset, offset + self.value_vectors * KEY_BLOCK, KEY_BLOCK)
            position = first_key + key
            places = [self.pages.value_words(self.head, position, one) for one in vectors]
            self._words = [self.codes.words("v", place) for place in places]
            self.prefetch_values(first_key, offset, key // self.pages.span)
        return [self.codes.number(one, turn) for one in self._words]


class StagedCodes(Tile):
    """A tile of many rows, or of corrected codes: a block is decoded to the scratch first."""

    def __init__(
        self, b: KernelBuilder, shape: TileShape, softcap_log2: float | None, pages: KvPages
    ) -> None:
        super().__init__(b, shape, softcap_log2)
        self.pages, self.codes = pages, Codes(b, pages)

    def stage(self, first_key: Value, keys: Value) -> None:
        """`scale * code + minimum` of all keys and values of a block, which are a whole page's."""
        span, width = self.pages.span, self.pages.head_dim
        group = min(self.pages.format.key_group, self.shape.key_block)
        if self.pages.format.has_codes(KEYS):
            for start in range(0, self.shape.key_block, group):
                with self.b.for_(0, width, span) as component:
                    self._stage_keys(first_key, range(start, start + group), component.iv)
        else:
            self._clear_keys()
        with self.b.for_(0, self.shape.key_block, span) as key:
            for offset in range(0, width, KEY_BLOCK):
                self._stage_values(first_key, key.iv, offset)
        for side in SIDES:
            if self.pages.format.corrected(side):
                self._correct(side, first_key)

    def _clear_keys(self) -> None:
        zero = self.b.const(0.0, _VECTOR)
        with self.b.for_(0, self.shape.key_block * self.pages.head_dim, KEY_BLOCK) as at:
            self.scratch.vstore(zero, self.at("k", at.iv))

    def _correct(self, side: str, first_key: Value) -> None:
        """Add what corrects the codes of a block to them."""
        b, size, width = self.b, self.pages.format.page, self.pages.head_dim
        fix, token = Corrections(b, self.pages, side), first_key % size
        start = fix.record.start(self.head, first_key // size)
        with b.for_(0, width if side == KEYS else self.shape.key_block) as loop:
            if side == KEYS:
                count, line, first = self.shape.key_block // KEY_BLOCK, loop.iv, token
                places = [self.at("k", (loop.iv + i * width) * KEY_BLOCK) for i in range(count)]
            else:
                line, first = token + loop.iv, b.const(0)
                places = [self.at("v", loop.iv * width + i) for i in range(0, width, KEY_BLOCK)]
            numbers = [self.scratch.vload(place, KEY_BLOCK) for place in places]
            numbers = fix.add(start, line, first, numbers)
            for place, one in zip(places, numbers, strict=True):
                self.scratch.vstore(one, place)
            for place, difference in fix.ends(start, line):
                self._add_one(side, loop.iv, place - first, difference)

    def _add_one(self, side: str, line: Value, place: Value, difference: Value) -> None:
        """Add to one number of a line of a block, if the block has it."""
        b, width = self.b, self.pages.head_dim
        if side == KEYS:
            inside = (place >= 0) & (place < self.shape.key_block)
            index = (line + place // KEY_BLOCK * width) * KEY_BLOCK + place % KEY_BLOCK
        else:
            inside, index = place >= 0, line * width + place
        with b.if_(inside):
            at = self.at(side[0], index)
            self.scratch.store(self.scratch.load(at) + difference, at)

    def _stage_keys(self, first_key: Value, run: range, component: Value) -> None:
        """A span of components of the keys of a group."""
        b, pages, width = self.b, self.pages, self.pages.head_dim
        base = pages.key_scales(self.head, (first_key + run[0]) // pages.format.key_group)
        blocks = range(run[0] // KEY_BLOCK, run[-1] // KEY_BLOCK + 1)
        first = first_key // KEY_BLOCK
        words = [
            self.codes.words("k", pages.key_words(self.head, first + one, component))
            for one in blocks
        ]
        for number in range(pages.span):
            scale, minimum = self.codes.scale("k", base + component + number, width)
            for block, one in zip(blocks, words, strict=True):
                at = self.at("k", (component + number + block * width) * KEY_BLOCK)
                self.scratch.vstore(b.fma(self.codes.number(one, number), scale, minimum), at)

    def _stage_values(self, first_key: Value, key: Value, offset: int) -> None:
        """16 components of a span of values."""
        b, pages, position = self.b, self.pages, first_key + key
        words = self.codes.words("v", pages.value_words(self.head, position, offset))
        base = pages.value_scales(self.head, offset // pages.value_group, position)
        for number in range(pages.span):
            scale, minimum = self.codes.scale("v", base + number, pages.padded)
            at = self.at("v", (key + number) * pages.head_dim + offset)
            self.scratch.vstore(b.fma(self.codes.number(words, number), scale, minimum), at)
