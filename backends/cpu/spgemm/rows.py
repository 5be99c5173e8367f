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
from dataclasses import dataclass, replace

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
    """C = A B: buffers are those of Frame.

    permute: LLVM's name of an instruction that permutes eight words, or None.
    """

    spec: Spec
    permute: str | None = None

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, Frame.buffers(self.spec))
        f = Frame(b, self.spec, self.permute)
        Dense(f).prepare()
        f.turns.run(lambda row: _append(f, row))
        return b.finish()


def _append(f: Frame, row: Value) -> None:
    """Append a row of the result."""
    first, last = f.index_at("a_start", row), f.index_at("a_start", row + 1)
    with f.b.if_(first < last):
        found = _counted(f, first, last)
        with f.b.if_(found.meeting.eq(1)) as single:
            _take(f, Copy, found)
        with single.otherwise(), f.b.if_(found.products > 0):
            _choose(f, _measured(f, found))


def _take(f: Frame, way: type[Accumulator], row: RowOf) -> None:
    f.turns.move(way(f).append(row, f.turns.cursor))


def _choose(f: Frame, row: RowOf) -> None:
    """Take the first accumulator whose condition holds; see the module."""
    in_window = row.width <= f.limit("window")
    conditions: tuple[tuple[type[Accumulator], Value], ...] = (
        (Dense, in_window & (row.width <= row.products * f.limit("drained"))),
        (Merged, (row.products <= f.limit("short")) & (row.width < RANKED_WIDTH)),
        (Listed, in_window),
    )
    _branch(f.b, conditions, Hashed, lambda way: _take(f, way, row))


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


def _counted(f: Frame, first: Value, last: Value) -> RowOf:
    """The row, whose products may be in any column."""
    b = f.b
    with b.for_(first, last, inits=[b.const(0), b.const(0), first]) as entry:
        products, meeting, only = entry.args
        with b.if_(f.limit("far") > 0):
            ahead = f.index_at("a_index", b.min(entry.iv + AHEAD, f.limit("last_entry")))
            asked = f.index_at("b_start", ahead)
            f["b_index"].prefetch(asked)
            f["b_value"].prefetch(asked)
        start, stop = f.row(f.index_at("a_index", entry.iv))
        some = start < stop
        entry.yield_(
            products + (stop - start),
            meeting + b.to_index(b.zext(some, i64)),
            b.select(some, entry.iv, only),
        )
    return RowOf(first, last, b.const(0), f.limit("columns"), *entry.results)


def _measured(f: Frame, row: RowOf) -> RowOf:
    """The row with the window of columns that its products are in."""
    b = f.b
    with b.for_(row.first, row.last, inits=[row.width, row.low]) as entry:
        low, end = entry.args
        start, stop = f.row(f.index_at("a_index", entry.iv))
        some = start < stop
        lowest = f.index_at("b_index", b.select(some, start, 0))
        highest = f.index_at("b_index", b.select(some, stop - 1, 0)) + 1
        entry.yield_(
            b.select(some, b.min(low, lowest), low), b.select(some, b.max(end, highest), end)
        )
    low, end = entry.results
    return replace(row, low=low, width=end - low)
