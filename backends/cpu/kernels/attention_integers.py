"""Tiles of an attention that multiplies codes by queries and weights of 8 bits.

The numbers are those of `sparse_attn.kv.products`: integers x of a step t for each row of queries
and group of tokens, and for each row of weights in a block and group of components. What the
middle h of the codes contributes is added as floats:

    sum((q[d] s[d]) c[d]) = t sum(x[d] c[d]) + h (sum(q[d] s[d]) - t sum(x[d]))
"""

from collections.abc import Callable
from dataclasses import dataclass

from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.attention_codes import CodedTile
from nybble.backends.cpu.kernels.attention_tile import TileShape
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, i8, i32, vec
from nybble.backends.cpu.kernels.kv import KEY_BLOCK
from nybble.backends.cpu.kernels.kv_pages import KvPages
from nybble.backends.cpu.kernels.loops import largest_lane, tree
from nybble.backends.cpu.kernels.matmul.intdot import WORDS, IntDot, int_dot
from nybble.backends.cpu.kernels.matmul.weights import divisor
from nybble.dialects.sparse_attn.kv.products import LARGEST, SMALLEST, middle

_VECTOR = vec(KEY_BLOCK, f32)
_QUAD = KEY_BLOCK // 4
Words = Callable[[Value], list[Value]]
"""Lanes of codes of some vectors by their number."""


@dataclass(frozen=True)
class Factor:
    """One side of the products: queries, or weights.

    part: of the scratch, where numbers are read and, as `folded_`, integers are put. width:
    numbers of a row. dot: how they are multiplied.
    """

    part: str
    width: int
    dot: IntDot

    @property
    def run(self) -> int:
        """Words in a round of a loop."""
        return divisor(self.width // (4 * self.dot.planes), self.dot.run)


class IntegerTile(CodedTile):
    """Products of integers, of any number of rows."""

    def __init__(
        self,
        b: KernelBuilder,
        shape: TileShape,
        softcap_log2: float | None,
        pages: KvPages,
        isa: Isa,
    ) -> None:
        super().__init__(b, shape, softcap_log2, pages)
        bits = pages.format.bits
        self._q = Factor("q", pages.head_dim, int_dot(isa, bits, 1))
        self._p = Factor("s", shape.key_block, int_dot(isa, bits, 1))
        self._middle = middle(pages.format)
        self._divide_registers()

    def _divide_registers(self) -> None:
        """Vectors and rows of a register tile, whose sums are one for each plane of codes.

        In decode codes of one plane are read as they lie, which memory brings without being asked;
        others are few bytes, of which more than two rows should have what was extracted.
        """
        shape, values = self.shape, len(self.value_runs()[0])
        room = shape.accumulators // self._q.dot.accumulators
        self._lies = shape.row_block == 1 and 2 * values <= room
        self.value_rows = divisor(shape.row_tile, room // values if self._lies else shape.row_tile)
        self.value_vectors = divisor(values, max(1, room // self.value_rows))
        self.key_vectors = 1

    def _fold(
        self, row: Value, part: str, places: list[Value], scales: list[tuple[Value, Value]]
    ) -> None:
        b, scratch = self.b, self.scratch
        factor = self._q if part == "q" else self._p
        numbers = [scratch.vload(self.at(part, place), KEY_BLOCK) for place in places]
        scaled = [one * scale for one, (scale, _) in zip(numbers, scales, strict=True)]
        most = largest_lane(b, tree([b.abs(one) for one in scaled], b.max))
        step = most / float(LARGEST)
        counts = b.select(most > SMALLEST, b.const(float(LARGEST), f32) / most, 0.0)
        wide = b.broadcast(counts, KEY_BLOCK)
        rounded = [b.roundeven(one * wide) for one in scaled]
        spread = b.broadcast(step * (factor.dot.offset - self._middle), KEY_BLOCK)
        total = b.const(0.0, _VECTOR)
        for index, (number, (scale, minimum)) in enumerate(zip(numbers, scales, strict=True)):
            centre = b.fma(scale, b.const(self._middle, _VECTOR), minimum)
            total = b.fma(number, centre, total)
            self._put(factor, row, index, b.fptosi(rounded[index], i32))
        total = b.fma(tree(rounded, lambda x, y: x + y), spread, total)
        scratch.store(b.reduce("add", total), self.at("offset", row))
        scratch.store(step, self.at("step", row))

    def _put(self, factor: Factor, row: Value, index: int, numbers: Value) -> None:
        """Store 16 integers as words of 4."""
        b = self.b
        word = b.bitcast(b.trunc(numbers, i8), vec(_QUAD, i32))
        for turn, one in enumerate(factor.dot.prepare(b, [word])):
            at = self._word(factor, row, turn) + index * _QUAD
            self.scratch.vstore(b.bitcast(one, vec(_QUAD, f32)), at)

    def _word(self, factor: Factor, row: Value, turn: int) -> Value:
        """Where the first word of a prepared digit of a row lies."""
        words = factor.width // 4
        return self.at(f"folded_{factor.part}", (row * factor.dot.prepared + turn) * words)

    def _sums(
        self, factor: Factor, row: Value, rows: int, vectors: int, words: Words
    ) -> list[Value]:
        """The products of vectors of codes with some rows, f32, row by row."""
        b, dot, count = self.b, factor.dot, rows * vectors
        empty = [one for _ in range(count) for one in dot.start(b, b.const(0, WORDS))]
        with b.for_(0, factor.width // self.pages.span, factor.run, inits=empty) as loop:
            each = [list(loop.args[i * dot.carried :][: dot.carried]) for i in range(count)]
            runs = [list(dot.open(one)) for one in each]
            for turn in range(factor.run):
                lanes = words(loop.iv + turn)
                for r in range(rows):
                    xs = self._activations(factor, row + r, loop.iv + turn)
                    for i, word in enumerate(lanes, r * vectors):
                        runs[i] = dot.step(b, runs[i], word, xs)
            closed = [dot.close(b, *pair) for pair in zip(each, runs, strict=True)]
            loop.yield_(*(one for carried in closed for one in carried))
        found = loop.results
        parts = (found[i * dot.carried :][: dot.carried] for i in range(count))
        return [b.sitofp(dot.total(b, part)) for part in parts]

    def _activations(self, factor: Factor, row: Value, word: Value) -> list[list[Value]]:
        """For each plane the prepared words that go with lanes of codes."""
        b, planes = self.b, factor.dot.planes
        return [
            [
                b.broadcast(
                    b.bitcast(self.scratch.load(at + (word * planes + plane)), i32), KEY_BLOCK
                )
                for at in (self._word(factor, row, turn) for turn in range(factor.dot.prepared))
            ]
            for plane in range(planes)
        ]

    def _added(self, start: Value, row: Value, found: Value) -> Value:
        step = self.b.broadcast(self.scratch.load(self.at("step", row)), KEY_BLOCK)
        return self.b.fma(found, step, start)

    def _score_tile(self, row: Value, first_key: Value, block: int) -> None:
        def words(index: Value) -> list[Value]:
            place = self.key_words(first_key, index * self.pages.span, block)
            self.prefetch("k", place)
            return [self.codes.words("k", place)]

        size, found = self.shape.key_block, self._sums(self._q, row, self.shape.row_tile, 1, words)
        for r, (start, one) in enumerate(zip(self.score_start(row), found, strict=True)):
            logit = self._capped(self._added(start, row + r, one))
            self.scratch.vstore(logit, self.at("s", (row + r) * size + block * KEY_BLOCK))

    def prefetch(self, side: str, at: Value) -> None:
        """See CodedTile; what is read as it lies comes by itself."""
        if not self._lies:
            super().prefetch(side, at)

    def _output_tile(
        self, row: Value, offset: int, first_key: Value, keys: Value, sums: list[Value]
    ) -> None:
        vectors = self.value_vectors

        def words(index: Value) -> list[Value]:
            position = first_key + index * self.pages.span
            self.prefetch_values(first_key, offset, index)
            offsets = range(offset, offset + vectors * KEY_BLOCK, KEY_BLOCK)
            places = [self.pages.value_words(self.head, position, one) for one in offsets]
            return [self.codes.words("v", place) for place in places]

        found = self._sums(self._p, row, self.value_rows, vectors, words)
        places = self._places(row, offset)
        for i, (place, start, one) in enumerate(zip(places, sums, found, strict=True)):
            self.scratch.vstore(self._added(start, row + i // vectors, one), place)
