"""The attention of a tile of query rows with one key head: an online softmax over blocks of keys.

FlashAttention-2 (Dao 2023, arXiv:2307.08691) with everything but the keys and values in a thread's
scratch. A tile has M rows: `row_block` positions of each of the `group` query heads that share the
key head, head by head. Per block of keys:

    S[M, block]  = Q K^T            register tiles of rows x 16-key vectors, broadcast q
    m, alpha, l  = online softmax   base 2: the scale of Q holds log2(e); l is kept per lane
    O[M, d]      = alpha O + S V    register tiles of rows x 16-component vectors, broadcast p
"""

from collections.abc import Callable

from nybble.backends.cpu.kernels import mathlib
from nybble.backends.cpu.kernels.attention_ahead import Ahead
from nybble.backends.cpu.kernels.attention_shape import TileShape
from nybble.backends.cpu.kernels.builder import Buffer, KernelBuilder, Operand, Value, f32, i32, vec
from nybble.backends.cpu.kernels.kv import KEY_BLOCK
from nybble.backends.cpu.kernels.loops import RowLanes, across, largest_lane, tree

MASKED = -3.0e38
"""The logit of a hidden key: finite, so that the difference of two of them is 0 and not NaN."""

NOTHING_SEEN = MASKED / 2
"""A largest logit that is no higher than this is that of a row that saw no key."""

SMALLEST_SUM, LARGEST_SUM = 2.0**-60, 2.0**100
"""A sum of exponentials around a fixed number that is outside of these may have lost some."""

_VECTOR = vec(KEY_BLOCK, f32)


class Tile:
    """Emits the steps of one tile; `head` (a key head) is set for the item at hand."""

    def __init__(self, b: KernelBuilder, shape: TileShape, softcap_log2: float | None):
        self.b = b
        self.shape = shape
        self.softcap_log2 = softcap_log2
        self.scratch = b.buffer("scratch")
        self.k, self.v = b.buffer("k"), b.buffer("v")
        self._base = b.tid * shape.scratch
        self.head = b.const(0)
        self.asked = Ahead(b, shape)
        self.key_vectors, self.value_vectors = shape.key_vectors, shape.value_vectors
        self.value_rows = shape.value_rows

    def at(self, part: str, index: Operand) -> Value:
        """Index into the scratch of element `index` of a part."""
        return self._base + self.shape.offset(part) + index

    # -- start and end

    def clear(self, peak: float = MASKED) -> None:
        """O = 0, l = 0, m = peak."""
        zero, shape = self.b.const(0.0, _VECTOR), self.shape
        with self.b.for_(0, shape.rows) as row:
            self.scratch.store(self.b.const(peak, f32), self.at("m", row.iv))
            self.scratch.vstore(zero, self.at("l", row.iv * KEY_BLOCK))
            for offset in range(0, shape.cache.head_dim, KEY_BLOCK):
                self.scratch.vstore(zero, self.at("o", row.iv * shape.cache.head_dim + offset))

    def load_query(self, row: Operand, source: Buffer, at: Value, scale: float) -> None:
        """Q[row] = scale * source[at : at + head_dim]."""
        width = self.shape.cache.head_dim
        row = self.b.value(row)
        for offset in range(0, width, KEY_BLOCK):
            scaled = source.vload(at + offset, KEY_BLOCK) * scale
            self.scratch.vstore(scaled, self.at("q", row * width + offset))

    def total(self, row: Value) -> Value:
        """Sum of the row's exponentials."""
        return self.b.reduce("add", self.scratch.vload(self.at("l", row * KEY_BLOCK), KEY_BLOCK))

    def peak(self, row: Value) -> Value:
        """The row's largest base-2 logit."""
        return self.scratch.load(self.at("m", row))

    def output(self, row: Value, offset: int) -> Value:
        """16 components of the row's unnormalised output."""
        width = self.shape.cache.head_dim
        return self.scratch.vload(self.at("o", row * width + offset), KEY_BLOCK)

    # -- one block of keys

    def online(self, first_key: Value, keys: Value) -> None:
        """Add a block under a running maximum: after `scores` (and `mask`).

        keys: how many keys of the block exist.
        """
        self._softmax(first_key)
        self._accumulate(first_key, keys, corrected=True)

    def peaks(self, first_key: Value, keys: Value) -> None:
        """Only let the maximum of each row rise to that of a block."""
        with self.b.for_(0, self.shape.rows) as row:
            logits = self._logits(row.iv)
            old = self.scratch.load(self.at("m", row.iv))
            new = self.b.max(old, largest_lane(self.b, tree(logits, self.b.max)))
            self.scratch.store(new, self.at("m", row.iv))

    def around(self, first_key: Value, keys: Value) -> None:
        """Add a block around what `m` is, see `online`; logits may be above it by 127."""
        self._exponentials()
        self._accumulate(first_key, keys, corrected=False)

    def out_of_range(self) -> Value:
        """Whether the sum of a row is too large or too small to be exact: a bit."""
        b = self.b
        with b.for_(0, self.shape.rows, inits=[b.const(0)]) as row:
            total = self.total(row.iv)
            fine = (total > SMALLEST_SUM) & (total < LARGEST_SUM)
            row.yield_(row.args[0] + b.select(fine, b.const(0), 1))
        return row.results[0] > 0

    def stage(self, first_key: Value, keys: Value) -> None:
        """Convert a block's keys and values to f32 in the scratch, if the tile does so."""
        if not self.shape.staged:
            return
        cache, b = self.shape.cache, self.b
        for part, source, base, count in (
            ("k", self.k, self._key_base(first_key), b.const(self.shape.key_block)),
            ("v", self.v, cache.value_row(self.head, cache.slot(b, first_key)), keys),
        ):
            with b.for_(0, count * cache.head_dim, KEY_BLOCK) as loop:
                wide = b.to_float(source.vload(base + loop.iv, KEY_BLOCK))
                self.scratch.vstore(wide, self.at(part, loop.iv))

    def _key_base(self, first_key: Value) -> Value:
        cache = self.shape.cache
        return cache.key_vector(self.head, cache.slot(self.b, first_key) // KEY_BLOCK, 0)

    # What follows is what codes do otherwise: `queries` and `weights` are names of parts.

    @property
    def in_strips(self) -> bool:
        """Whether values are read some keys at a time: where memory takes the time."""
        return self.shape.row_block == 1 and not self.shape.staged

    queries, weights = "q", "s"
    components = 2
    """Components of keys in a turn of a loop."""

    def key_runs(self) -> list[range]:
        """The first keys of runs of 16, cut where scales change."""
        return [range(0, self.shape.key_block, KEY_BLOCK)]

    def value_runs(self) -> list[range]:
        """The first components of runs of 16, cut where scales change."""
        return [range(0, self.shape.cache.head_dim, KEY_BLOCK)]

    def fold_query(self, first_key: Value) -> None:
        """Prepare `queries` for the run of keys from `first_key` on."""

    def fold_weights(self, first_key: Value, component: int) -> None:
        """Prepare `weights` for the run of components from `component` on."""

    def score_start(self, row: Value) -> list[Value]:
        """What the scores of a register tile begin with, row by row."""
        zero = self.b.const(0.0, _VECTOR)
        return [zero] * (self.shape.row_tile * self.key_vectors)

    def read_keys(self, first_key: Value, component: Value, block: int, turn: int) -> list[Value]:
        """A component of `key_vectors` vectors of keys, f32; turn: which of `components`."""
        shape = self.shape
        source = self.scratch if shape.staged else self.k
        base = self.at("k", 0) if shape.staged else self._key_base(first_key)
        rows = (component + (block + i) * shape.cache.head_dim for i in range(self.key_vectors))
        places = [base + row * KEY_BLOCK for row in rows]
        keys = [self.b.to_float(source.vload(place, KEY_BLOCK)) for place in places]
        self.asked.by_keys(self.head, first_key, (component, block, turn), places)
        return keys

    def key_loops(self, keys: Value) -> list[tuple[Value, Value, int]]:
        """First key, end and step of the loops over the values of a block."""
        step = self.shape.strip if self.in_strips else 4
        whole = keys // step * step
        return [(self.b.const(0), whole, step), (whole, keys, 1)]

    def read_values(self, first_key: Value, key: Value, offset: Operand, turn: int) -> list[Value]:
        """`value_vectors` vectors of a value from a component on, f32; turn: which of a step."""
        shape, b = self.shape, self.b
        if shape.staged:
            source, base = self.scratch, self.at("v", key * shape.cache.head_dim + offset)
        else:
            source = self.v
            first = shape.cache.slot(b, first_key)
            base = shape.cache.value_row(self.head, first + key) + offset
        places = [base + i * KEY_BLOCK for i in range(self.value_vectors)]
        return [b.to_float(source.vload(place, KEY_BLOCK)) for place in places]

    # The same for all.

    def scores(self, first_key: Value) -> None:
        """S = Q K^T in base-2 logits, soft-capped if the tile has a cap.

        Rows are the inner loop: the keys of a register tile stay in L1, a block's may not.
        """
        shape = self.shape
        for run in self.key_runs():
            self.fold_query(first_key + run[0])
            for key in run[:: self.key_vectors]:
                with self.b.for_(0, shape.rows, shape.row_tile) as rows:
                    self._score_tile(rows.iv, first_key, key // KEY_BLOCK)

    def _score_tile(self, row: Value, first_key: Value, block: int) -> None:
        shape, b = self.shape, self.b
        width, vectors, rows = shape.cache.head_dim, self.key_vectors, range(shape.row_tile)
        with b.for_(0, width, self.components, inits=self.score_start(row)) as loop:
            sums = list(loop.args)
            for turn in range(self.components):
                component = loop.iv + turn
                keys = self.read_keys(first_key, component, block, turn)
                for r in rows:
                    q = self.scratch.load(self.at(self.queries, (row + r) * width + component))
                    mine = slice(r * vectors, (r + 1) * vectors)
                    sums[mine] = self._fma_row(q, keys, sums[mine])
            loop.yield_(*sums)
        for r in rows:
            for i in range(vectors):
                at = (row + r) * shape.key_block + (block + i) * KEY_BLOCK
                logit = self._capped(loop.results[r * vectors + i])
                self.scratch.vstore(logit, self.at("s", at))

    def _fma_row(self, scalar: Value, vectors: list[Value], sums: list[Value]) -> list[Value]:
        spread = self.b.broadcast(scalar, KEY_BLOCK)
        return [self.b.fma(spread, x, s) for x, s in zip(vectors, sums, strict=True)]

    def _capped(self, logit: Value) -> Value:
        if self.softcap_log2 is None:
            return logit
        return mathlib.tanh(self.b, logit) * self.softcap_log2

    def mask(
        self,
        first_key: Value,
        first_position: Value,
        sees: Callable[[Value, Value], Value],
        *,
        shared: bool = False,
    ) -> None:
        """Hide the keys that each row may not see; row r is at first_position + r % row_block.

        shared: all rows are at first_position.
        sees: from vectors of the positions of a query and of keys (i32) to a vector of bits.
        """
        shape, b = self.shape, self.b
        lane = b.const(list(range(KEY_BLOCK)), vec(KEY_BLOCK, i32))
        first = b.broadcast(b.from_index(first_key, i32), KEY_BLOCK)
        with b.for_(0, shape.rows) as row:
            position = first_position if shared else first_position + row.iv % shape.row_block
            query = b.broadcast(b.from_index(position, i32), KEY_BLOCK)
            for offset in range(0, shape.key_block, KEY_BLOCK):
                at = self.at("s", row.iv * shape.key_block + offset)
                seen = sees(query, first + lane + offset)
                self.scratch.vstore(b.select(seen, self.scratch.vload(at, KEY_BLOCK), MASKED), at)

    def _logits(self, row: Value) -> list[Value]:
        base = self.at("s", row * self.shape.key_block)
        offsets = range(0, self.shape.key_block, KEY_BLOCK)
        return [self.scratch.vload(base + offset, KEY_BLOCK) for offset in offsets]

    def _keep(self, row: Value, weights: list[Value]) -> None:
        """Put exponentials in the place of their logits."""
        base = self.at("s", row * self.shape.key_block)
        for index, weight in enumerate(weights):
            self.scratch.vstore(weight, base + index * KEY_BLOCK)

    def _exponentials(self) -> None:
        b = self.b
        with b.for_(0, self.shape.rows) as row:
            peak = b.broadcast(self.scratch.load(self.at("m", row.iv)), KEY_BLOCK)
            weights = [mathlib.exp2(b, logit - peak) for logit in self._logits(row.iv)]
            at_sum = self.at("l", row.iv * KEY_BLOCK)
            added = tree(weights, lambda x, y: x + y)
            self.scratch.vstore(self.scratch.vload(at_sum, KEY_BLOCK) + added, at_sum)
            self._keep(row.iv, weights)

    def _softmax(self, first_key: Value) -> None:
        """Exponentials of a few rows at a time, whose maxima lie in one vector."""
        b, count = self.b, self.shape.few_rows
        lanes = RowLanes(b, count, KEY_BLOCK)
        with b.for_(0, self.shape.rows, count) as rows:
            few = [rows.iv + r for r in range(count)]
            logits = [self._logits(row) for row in few]
            old = lanes.load(self.scratch, self.at("m", rows.iv))
            new = b.max(old, across(b, [tree(one, b.max) for one in logits], b.max))
            alphas = mathlib.exp2_nonpositive(b, old - new)
            lanes.store(new, self.scratch, self.at("m", rows.iv))
            lanes.store(alphas, self.scratch, self.at("alpha", rows.iv))
            for r, (row, mine) in enumerate(zip(few, logits, strict=True)):
                peak, alpha = lanes.of(new, r), lanes.of(alphas, r)
                self.asked.by_softmax(self.head, first_key, row)
                weights = [mathlib.exp2_nonpositive(b, logit - peak) for logit in mine]
                at_sum = self.at("l", row * KEY_BLOCK)
                added = tree(weights, lambda x, y: x + y)
                total = b.fma(self.scratch.vload(at_sum, KEY_BLOCK), alpha, added)
                self.scratch.vstore(total, at_sum)
                self._keep(row, weights)

    def _accumulate(self, first_key: Value, keys: Value, *, corrected: bool) -> None:
        shape = self.shape
        if self.in_strips:
            self._accumulate_strips(first_key, keys, corrected=corrected)
            return
        for run in self.value_runs():
            self.fold_weights(first_key, run[0])
            for offset in run[:: self.value_vectors]:
                with self.b.for_(0, shape.rows, self.value_rows) as rows:
                    sums = self.output_start(rows.iv, offset, corrected=corrected)
                    self._output_tile(rows.iv, offset, first_key, keys, sums)

    def _accumulate_strips(self, first_key: Value, keys: Value, *, corrected: bool) -> None:
        """Some keys at a time and of them all components, so that memory is read as it lies."""
        shape, b, step = self.shape, self.b, self.value_vectors * KEY_BLOCK
        if corrected:
            with b.for_(0, shape.rows, self.value_rows) as rows:
                for offset in range(0, shape.cache.head_dim, step):
                    sums = self.output_start(rows.iv, offset, corrected=True)
                    self._put_output(rows.iv, offset, sums)
        for lo, hi, strip in self.key_loops(keys):
            with (
                b.for_(lo, hi, strip) as first,
                b.for_(0, shape.cache.head_dim, step) as offset,
            ):
                place = first_key, first.iv, strip
                self.asked.by_strip(self.head, place, offset.iv)
                with b.for_(0, shape.rows, self.value_rows) as rows:
                    sums = self.output_start(rows.iv, offset.iv, corrected=False)
                    for turn in range(strip):
                        key = first.iv + turn
                        self.asked.by_value(self.head, place, rows.iv, turn)
                        values = self.read_values(first_key, key, offset.iv, turn)
                        sums = self._add_value(sums, rows.iv, key, values)
                    self._put_output(rows.iv, offset.iv, sums)

    def _put_output(self, row: Value, offset: Operand, sums: list[Value]) -> None:
        for place, total in zip(self._places(row, offset), sums, strict=True):
            self.scratch.vstore(total, place)

    def _places(self, row: Value, offset: Operand) -> list[Value]:
        """Where the vectors of a register tile of O lie, row by row."""
        shape = self.shape
        return [
            self.at("o", (row + r) * shape.cache.head_dim + offset + i * KEY_BLOCK)
            for r in range(self.value_rows)
            for i in range(self.value_vectors)
        ]

    def output_start(self, row: Value, offset: Operand, *, corrected: bool) -> list[Value]:
        """The vectors of O, each times the alpha of its row if they are corrected by it."""
        b, rows = self.b, range(self.value_rows)
        sums = [self.scratch.vload(place, KEY_BLOCK) for place in self._places(row, offset)]
        added = [one for one in self.output_added(row) for _ in range(self.value_vectors)]
        if not corrected:
            return [x + y for x, y in zip(sums, added, strict=True)] if added else sums
        alphas = [self.scratch.load(self.at("alpha", row + r)) for r in rows]
        wide = [b.broadcast(one, KEY_BLOCK) for one in alphas for _ in range(self.value_vectors)]
        if not added:
            return [x * y for x, y in zip(sums, wide, strict=True)]
        return [b.fma(*each) for each in zip(sums, wide, added, strict=True)]

    def output_added(self, row: Value) -> list[Value]:
        """What all components of some rows get; nothing where numbers are what they say."""
        return []

    def _output_tile(
        self, row: Value, offset: int, first_key: Value, keys: Value, sums: list[Value]
    ) -> None:
        for lo, hi, unroll in self.key_loops(keys):
            with self.b.for_(lo, hi, unroll, inits=sums) as loop:
                sums = list(loop.args)
                for turn in range(unroll):
                    values = self.read_values(first_key, loop.iv + turn, offset, turn)
                    sums = self._add_value(sums, row, loop.iv + turn, values)
                loop.yield_(*sums)
            sums = loop.results
        self._put_output(row, offset, sums)

    def _add_value(
        self, sums: list[Value], row: Value, key: Value, values: list[Value]
    ) -> list[Value]:
        shape, vectors = self.shape, self.value_vectors
        out: list[Value] = []
        for r in range(self.value_rows):
            p = self.scratch.load(self.at(self.weights, (row + r) * shape.key_block + key))
            out += self._fma_row(p, values, sums[r * vectors : (r + 1) * vectors])
        return out
