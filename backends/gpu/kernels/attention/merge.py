"""Partial results of attention become one: first those of a block's warps, then those of blocks.

A partial result is (m, l, o): the largest logit, the sum of 2**(logit - m), and the values summed
with those weights. Several of them make the same triple again:

    m = max m_i    l = sum l_i 2**(m_i - m)    o = sum o_i 2**(m_i - m)        result = o / l

so they may come from splits of the keys, from a shared prefix, or from windows. The block that is
the last of its head to write its partial result merges all of them; it leaves the counter at 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import e, log2

from xdsl.dialects.builtin import i32

from nybble.backends.building.values import Value, f32, vec
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.kernels.attention.spec import ROWS, DecodeSpec
from nybble.backends.gpu.kernels.instructions import (
    exp2,
    load_floats,
    maximum,
    pack_halves,
    store_floats,
)

LANES = 4
"""Elements of a row that a thread merges at once."""
_BATCH = 16
_FLOAT = 4


def _row_floats(spec: DecodeSpec) -> int:
    """Of a query's row in shared memory: padded, so that rows begin at different banks."""
    return spec.head_dim + 4


def shared_bytes(spec: DecodeSpec) -> int:
    """Of a block: (m, l) and o of each warp and query, and a flag."""
    rows = spec.warps * spec.query_tiles * ROWS
    return rows * (2 + _row_floats(spec)) * _FLOAT + 16


@dataclass(frozen=True)
class Partial:
    """(m, l, o) with LANES elements of o."""

    m: Value
    l: Value  # noqa: E741  the letter of the papers
    o: list[Value]


def merged(b: GpuBuilder, parts: Sequence[Partial]) -> Partial:
    """One of several."""
    m = parts[0].m
    for part in parts[1:]:
        m = maximum(b, m, part.m)
    weights = [exp2(b, part.m - m) for part in parts]
    zero = b.const(0.0, f32)
    total, result = zero, [zero] * LANES
    for weight, part in zip(weights, parts, strict=True):
        total = b.fma(weight, part.l, total)
        result = [b.fma(weight, x, y) for x, y in zip(part.o, result, strict=True)]
    return Partial(m, total, result)


class Merge:
    """Writes the end of a decode kernel; buffers: pointers to the kernel's arguments by name.

    run: elements of a row that a lane has side by side. The fours of odd runs are exchanged in
    shared memory, so that lanes of two runs write fours into different banks.
    """

    def __init__(
        self, b: GpuBuilder, spec: DecodeSpec, buffers: dict[str, Value], run: int
    ) -> None:
        assert run % (2 * LANES) == 0
        self.b, self.spec, self.buffers, self.run = b, spec, buffers, run
        self.job, self.split = b.block_id() // spec.splits, b.block_id() % spec.splits
        self.head, self.chunk = self.job, b.const(0, i32)
        if spec.texts > 1:
            self.head, self.chunk = self.job % spec.heads, self.job // spec.heads
        rows = spec.warps * spec.query_tiles * ROWS
        self._rows = b.offset(b.shared(), rows * 2 * _FLOAT)
        self._flag = b.offset(b.shared(), shared_bytes(spec) - 16)

    def exists(self, query: Value) -> Value:
        """Whether a query of the block is one: not beyond the group, nor of a text that is not."""
        spec = self.spec
        inside = query < spec.queries
        if spec.texts % spec.texts_at_once:
            text = self.chunk * spec.texts_at_once + query // spec.group
            inside = inside & (text < spec.texts)
        return inside

    def row(self, query: Value) -> Value:
        """Which of all queries one of the block is."""
        spec = self.spec
        if spec.texts == 1:
            return self.head * spec.group + query
        text = self.chunk * spec.texts_at_once + query // spec.group
        return (text * spec.kv_heads + self.head) * spec.group + query % spec.group

    def put_statistics(self, warp: Value, query: Value, m: Value, total: Value) -> None:
        """(m, l) of a warp's query into shared memory."""
        row = warp * (self.spec.query_tiles * ROWS) + query
        at = self.b.offset(self.b.shared(), row * (2 * _FLOAT))
        self.b.store(m, at)
        self.b.store(total, self.b.offset(at, _FLOAT))

    def put(self, warp: Value, query: Value, run: Value, shown: dict[int, Value]) -> None:
        """Elements of o of a warp's query into shared memory, by number, counted from the first of
        a run; whole fours of them."""
        row = warp * (self.spec.query_tiles * ROWS) + query
        at = row * (_row_floats(self.spec) * _FLOAT) + run * (self.run * _FLOAT)
        moved = (run & 1) * (LANES * _FLOAT)
        places = self.b.offset(self._rows, at + moved), self.b.offset(self._rows, at - moved)
        for first in sorted(shown)[::LANES]:
            four = self.b.emit_from([shown[first + i] for i in range(LANES)])
            self.b.store(four, self.b.offset(places[first // LANES % 2], first * _FLOAT))

    def finish(self) -> None:
        """Merge the warps and write; where keys are split, the last block merges all blocks."""
        self.b.barrier()
        for position in self._positions():
            self._each(position, self._write_block)
        if self.spec.splits == 1:
            return
        self._hand_over()

    # -- who merges what

    def _positions(self) -> list[Value]:
        """Which LANES elements of the block's rows this thread takes, in rounds."""
        count = self.spec.queries * self.spec.head_dim // LANES
        rounds = -(-count // self.spec.threads)
        return [self.b.thread() + i * self.spec.threads for i in range(rounds)]

    def _each(self, position: Value, action: Callable[[Value, Value], None]) -> None:
        """action(query, first element) where the position exists."""
        each = self.spec.head_dim // LANES
        with self.b.if_(position < self.spec.queries * each):
            action(position // each, position % each * LANES)

    def _write_block(self, query: Value, element: Value) -> None:
        b, spec = self.b, self.spec
        placed = element ^ (element // self.run & 1) * LANES
        parts: list[Partial] = []
        for warp in range(spec.warps):
            row = query + warp * spec.query_tiles * ROWS
            stats = b.load(b.offset(b.shared(), row * (2 * _FLOAT)), vec(2, f32))
            at = row * (_row_floats(spec) * _FLOAT) + placed * _FLOAT
            o = b.load(b.offset(self._rows, at), vec(LANES, f32))
            m, total = b.lanes_of(stats)
            parts.append(Partial(m, total, b.lanes_of(o)))
        whole = merged(b, parts)
        if spec.splits == 1:
            self._write_result(whole, query, element)
            return
        row = self._partial_row(self.split, query)
        store_floats(b, self._partial_element(row, element), whole.o)
        with b.if_(element.eq(0)):
            store_floats(b, self._partial_statistics(row), [whole.m, whole.l])

    def _write_result(self, whole: Partial, query: Value, element: Value) -> None:
        write = self._write_part if self.spec.part else self._write_whole
        if self.spec.texts % self.spec.texts_at_once == 0:
            write(whole, self.row(query), element)
            return
        with self.b.if_(self.exists(query)):
            write(whole, self.row(query), element)

    def _write_part(self, whole: Partial, row: Value, element: Value) -> None:
        """The sums as they are; the largest logit in its own units, of base e."""
        b, acc = self.b, self.buffers["acc"]
        place = b.offset(acc, (row * self.spec.head_dim + element) * _FLOAT)
        store_floats(b, place, whole.o)
        with b.if_(element.eq(0)):
            nothing = b.const(float("-inf"), f32)
            most = b.select(whole.l > 0.0, whole.m * (1 / log2(e)), nothing)
            for name, value in (("max", most), ("sum", whole.l)):
                b.store(value, b.offset(self.buffers[name], row * _FLOAT))

    def _write_whole(self, whole: Partial, row: Value, element: Value) -> None:
        b, spec = self.b, self.spec
        one = b.const(1.0, f32)
        inverse = b.select(whole.l > 0.0, one / whole.l, 0.0)
        scaled = [x * inverse for x in whole.o]
        words = [pack_halves(b, spec.half, *scaled[i : i + 2]) for i in (0, 2)]
        at = row * (spec.head_dim * 2) + element * 2
        text = "st.global.v2.b32 [$0], {$1, $2};"
        b.ptx(text, (), [b.offset(self.buffers["out"], at), *words], effects=True)

    # -- the partial results of blocks

    def _partial_row(self, split: Value, query: Value) -> Value:
        return (self.job * self.spec.splits + split) * self.spec.queries + query

    def _partial_element(self, row: Value, element: Value) -> Value:
        at = row * (self.spec.head_dim * _FLOAT) + element * _FLOAT
        return self.b.offset(self.buffers["partial"], at)

    def _partial_statistics(self, row: Value) -> Value:
        return self.b.offset(self.buffers["statistics"], row * (2 * _FLOAT))

    def _hand_over(self) -> None:
        """Count this block in; the last one of a head finds all of them written."""
        b, spec = self.b, self.spec
        b.barrier()
        counter = b.offset(self.buffers["counters"], self.job * 4)
        first = b.thread().eq(0)
        with b.if_(first):
            text = "atom.acq_rel.gpu.global.add.u32 $0, [$1], 1;"
            b.store(b.ptx(text, [i32], [counter], effects=True)[0], self._flag)
        b.barrier()
        with b.if_(b.load(self._flag, i32).eq(spec.splits - 1)):
            for position in self._positions():
                self._each(position, self._merge_blocks)
            with b.if_(first):
                b.ptx("st.global.u32 [$0], 0;", (), [counter], effects=True)

    def _merge_blocks(self, query: Value, element: Value) -> None:
        b, splits = self.b, self.spec.splits
        batch = min(splits, _BATCH)
        zero = b.const(0.0, f32)
        start = [b.const(-1e30, f32), *[zero] * (1 + LANES)]
        with b.for_(b.const(0, i32), splits, batch, start) as loop:
            before = Partial(loop.args[0], loop.args[1], [*loop.args[2:]])
            parts = [self._read_block(loop.iv + i, query, element) for i in range(batch)]
            whole = merged(b, [before, *parts])
            loop.yield_(whole.m, whole.l, *whole.o)
        m, total, *o = loop.results
        self._write_result(Partial(m, total, o), query, element)

    def _read_block(self, split: Value, query: Value, element: Value) -> Partial:
        """A block's partial result; past the last one, one that weighs nothing."""
        b, splits = self.b, self.spec.splits
        inside = split < splits
        row = self._partial_row(b.select(inside, split, splits - 1), query)
        m, total = load_floats(b, self._partial_statistics(row), 2)
        o = load_floats(b, self._partial_element(row, element), LANES)
        if splits % min(splits, _BATCH):
            m = b.select(inside, m, -1e30)
            total = b.select(inside, total, 0.0)
            o = [b.select(inside, x, 0.0) for x in o]
        return Partial(m, total, o)
