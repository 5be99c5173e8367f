"""Row-wise products of sparse matrices (Gustavson 1978), one kernel for every accumulator.

A row of the result is the sum of rows of B, each times an entry of A's row. The kernel looks at how
many products a row has and how wide the window of their columns is, and adds them up accordingly:

| the row has | its products are |
|---|---|
| one entry that meets a row of B | copied |
| a window of at most `drained` columns for each product | added in place, drained in order |
| at most `short` products | sorted by rank and merged |
| a window of at most `window` columns | added in place, listed, the list sorted |
| else | added in a hash table, listed, the list sorted |
"""

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, i64
from nybble.backends.cpu.spgemm.accumulator import Accumulator, RowOf
from nybble.backends.cpu.spgemm.dense import Dense, Listed
from nybble.backends.cpu.spgemm.frame import Frame
from nybble.backends.cpu.spgemm.hashed import Hashed
from nybble.backends.cpu.spgemm.short import Copy, Merged
from nybble.backends.cpu.spgemm.spec import Spec

AHEAD = 16
"""Entries of A whose rows of B are asked for before they are needed."""
RANKED_WIDTH = 1 << 25
"""A column of a narrower window and the number of a product share a word."""


@dataclass(frozen=True)
class Rows:
    """C = A B: buffers are those of Frame. c_start gets where each row ends, counted from the
    first of its thread's rows; totals the entries of each thread.

    permute: LLVM's name of an instruction that permutes eight words, or None.
    """

    spec: Spec
    permute: str | None = None

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, Frame.buffers(self.spec))
        f = Frame(b, self.spec, self.permute)
        Dense(f).prepare()
        cursor, origin = f.part("cursor", i64), f.index_at("places", b.tid)
        cursor.store(b.from_index(origin, i64), 0)
        with b.for_(f.index_at("rows", b.tid), f.index_at("rows", b.tid + 1)) as loop:
            first, last = f.index_at("a_start", loop.iv), f.index_at("a_start", loop.iv + 1)
            with b.if_(first < last):
                row = _measured(f, first, last)
                with b.if_(row.products > 0):
                    _choose(f, row, lambda way: _append(f, way, row))
            ends = b.from_index(b.to_index(cursor.load(0)) - origin, self.spec.index)
            f["c_start"].store(ends, loop.iv + 1)
        f["totals"].store(cursor.load(0) - b.from_index(origin, i64), b.tid)
        return b.finish()


def _append(f: Frame, way: type[Accumulator], row: RowOf) -> None:
    cursor = f.part("cursor", i64)
    after = way(f).append(row, f.b.to_index(cursor.load(0)))
    cursor.store(f.b.from_index(after, i64), 0)


def _choose(f: Frame, row: RowOf, take: Callable[[type[Accumulator]], None]) -> None:
    """Take the first accumulator whose condition holds; see the module."""
    in_window = row.width <= f.limit("window")
    conditions: tuple[tuple[type[Accumulator], Value], ...] = (
        (Copy, row.meeting.eq(1)),
        (Dense, in_window & (row.width <= row.products * f.limit("drained"))),
        (Merged, (row.products <= f.limit("short")) & (row.width < RANKED_WIDTH)),
        (Listed, in_window),
    )
    _branch(f.b, conditions, Hashed, take)


def _branch(
    b: KernelBuilder,
    conditions: tuple[tuple[type[Accumulator], Value], ...],
    otherwise: type[Accumulator],
    take: Callable[[type[Accumulator]], None],
) -> None:
    if not conditions:
        take(otherwise)
        return
    (way, condition), *others = conditions
    with b.if_(condition) as branch:
        take(way)
    with branch.otherwise():
        _branch(b, tuple(others), otherwise, take)


def _measured(f: Frame, first: Value, last: Value) -> RowOf:
    """The row with the window of columns that its products may be in."""
    b = f.b
    inits = [f.limit("columns"), b.const(0), b.const(0), b.const(0), first]
    with b.for_(first, last, inits=inits) as entry:
        low, end, products, meeting, only = entry.args
        ahead = f.index_at("a_index", b.min(entry.iv + AHEAD, f.limit("last_entry")))
        asked = f.index_at("b_start", ahead)
        f["b_index"].prefetch(asked)
        f["b_value"].prefetch(asked)
        start, stop = f.row(f.index_at("a_index", entry.iv))
        some = start < stop
        lowest = f.index_at("b_index", b.select(some, start, 0))
        highest = f.index_at("b_index", b.select(some, stop - 1, 0)) + 1
        entry.yield_(
            b.select(some, b.min(low, lowest), low),
            b.select(some, b.max(end, highest), end),
            products + (stop - start),
            meeting + b.to_index(b.zext(some, i64)),
            b.select(some, entry.iv, only),
        )
    low, end, products, meeting, only = entry.results
    return RowOf(first, last, low, end - low, products, meeting, only)
