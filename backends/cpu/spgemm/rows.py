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
        found = _measured(f, first, last)
        with f.b.if_(found.products > 0):
            _choose(f, found, lambda way: f.turns.move(way(f).append(found, f.turns.cursor)))


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
