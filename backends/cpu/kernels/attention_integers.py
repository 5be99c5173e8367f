"""Tiles of an attention that multiplies codes by queries and weights of 8 bits.

The numbers are those of `sparse_attn.kv.products`: integers x of a step t for each row of queries
and group of tokens, and for each row of weights in a block and group of components. What the
middle h of the codes contributes is added as floats:

    sum((q[d] s[d]) c[d]) = t sum(x[d] c[d]) + h (sum(q[d] s[d]) - t sum(x[d]))
"""

from collections.abc import Callable
from dataclasses import dataclass

from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels import mathlib
from nybble.backends.cpu.kernels.attention_codes import CodedTile
from nybble.backends.cpu.kernels.attention_shape import TileShape
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, i8, i32, vec
from nybble.backends.cpu.kernels.kv import KEY_BLOCK
from nybble.backends.cpu.kernels.kv_pages import KvPages
from nybble.backends.cpu.kernels.loops import RowLanes, across, divisor, tree
from nybble.backends.cpu.kernels.matmul.intdot import ANY_NUMBER, WORDS, IntDot, int_dot
from nybble.dialects.sparse_attn.kv.products import LARGEST, SMALLEST, middle

_VECTOR = vec(KEY_BLOCK, f32)
_QUAD = KEY_BLOCK // 4
KEY_WORDS, VALUE_WORDS = 4, 2
"""Words of codes in a round of a loop: in longer ones integers for later are kept in registers
until these do not suffice (Zen 4: rounds of all words take 8% more)."""
Words = Callable[[Value], list[Value]]
"""Lanes of codes of some vectors by their number."""


@dataclass(frozen=True)
class Factor:
    """One side of the products: queries, or weights.

    part: of the scratch, where numbers are read and, as `folded_`, integers are put. width:
    numbers of a row. dot: how they are multiplied. most: words in a round of a loop where
    sums need no widening.
    """

    part: str
    width: int
    dot: IntDot
    most: int

    @property
    def run(self) -> int:
        """Words in a round of a loop: as many as may be added up before sums are widened."""
        most = self.most if self.dot.run == ANY_NUMBER else self.dot.run
        return divisor(self.width // (4 * self.dot.planes), most)


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
        self._q = Factor("q", pages.head_dim, int_dot(isa, bits, 1), KEY_WORDS)
        self._p = Factor("s", shape.key_block, int_dot(isa, bits, 1), VALUE_WORDS)
        self._middle = middle(pages.format)
        self._divide_registers()

    def _divide_registers(self) -> None:
        """Vectors and rows of a register tile, whose sums are one for each plane of codes.

        In decode codes of one plane are read as they lie; others are few bytes, of which more than
        two rows should have what was extracted.
        """
        shape, values = self.shape, len(self.value_runs()[0])
        room = shape.accumulators // self._q.dot.accumulators
        lies = shape.row_block == 1 and 2 * values <= room
        self.value_rows = divisor(shape.row_tile, room // values if lies else shape.row_tile)
        self.value_vectors = divisor(values, max(1, room // self.value_rows))
        self.key_vectors = 1

    def _fold(
        self, first_row: Value, part: str, width: int, scales: list[tuple[Value, Value]]
    ) -> None:
        b, factor = self.b, self._q if part == "q" else self._p
        few = range(self.shape.few_rows)
        numbers = [self._numbers(part, first_row + r, width) for r in few]
        scaled = [[x * scale for x, (scale, _) in zip(row, scales, strict=True)] for row in numbers]
        most = across(b, [tree([b.abs(x) for x in row], b.max) for row in scaled], b.max)
        steps = most / float(LARGEST)
        counts = b.select(most > SMALLEST, b.const(float(LARGEST), _VECTOR) / most, 0.0)
        shares = steps * (factor.dot.offset - self._middle)
        self._keep_rows("step", first_row, steps)
        centre = b.const(self._middle, _VECTOR)
        centres = [b.fma(scale, centre, minimum) for scale, minimum in scales]
        lanes, totals = RowLanes(b, len(few), KEY_BLOCK), []
        for r in few:
            wide, spread = lanes.of(counts, r), lanes.of(shares, r)
            whole = [mathlib.round_to_int(b, x * wide) for x in scaled[r]]
            total = b.const(0.0, _VECTOR)
            for index, (x, c) in enumerate(zip(numbers[r], centres, strict=True)):
                total = b.fma(x, c, total)
                self._put(factor, first_row + r, index, whole[index])
            count = b.sitofp(tree(whole, lambda x, y: x + y))
            totals.append(b.fma(count, spread, total))
        self._keep_rows("offset", first_row, across(b, totals, lambda x, y: x + y))

    def _numbers(self, part: str, row: Value, width: int) -> list[Value]:
        places = (self.at(part, row * width + offset) for offset in range(0, width, KEY_BLOCK))
        return [self.scratch.vload(place, KEY_BLOCK) for place in places]

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
