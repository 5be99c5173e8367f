"""Row-wise products of sparse matrices (Gustavson 1978), one kernel for every accumulator.

A row of the result is the sum of rows of B, each times an entry of A's row. The kernel looks at how
many products a row has and how wide the window of their columns is, and adds them up accordingly.
"""

from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, i64
from nybble.backends.cpu.spgemm.accumulators import Copy, Dense, Hashed, RowOf
from nybble.backends.cpu.spgemm.frame import Frame
from nybble.backends.cpu.spgemm.spec import Spec


@dataclass(frozen=True)
class Rows:
    """C = A B: buffers are those of Frame; `counts` gets the entries of each row."""

    spec: Spec

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, Frame.buffers(self.spec))
        f = Frame(b, self.spec)
        dense = Dense(f)
        dense.prepare()
        cursor = f.part("cursor", i64)
        cursor.store(f["places"].load(b.tid), 0)
        with b.for_(f.index_at("rows", b.tid), f.index_at("rows", b.tid + 1)) as loop:
            first, last = f.index_at("a_start", loop.iv), f.index_at("a_start", loop.iv + 1)
            place = b.to_index(cursor.load(0))
            row = self._measured(f, first, last)

            def finish(after: Value, row_index=loop.iv, before=place) -> None:
                cursor.store(b.from_index(after, i64), 0)
                f["counts"].store(b.from_index(after - before, i64), row_index)

            with b.if_(row.products.eq(0)) as empty:
                finish(place)
            with empty.otherwise():
                with b.if_((last - first).eq(1)) as single:
                    finish(Copy(f).append(row, place))
                with single.otherwise():
                    fits = row.width <= f.limit("dense_width")
                    filled = row.width <= row.products * f.limit("dense_ratio")
                    with b.if_(fits & filled) as many:
                        finish(dense.append(row, place))
                    with many.otherwise():
                        finish(Hashed(f).append(row, place))
        return b.finish()

    def _measured(self, f: Frame, first: Value, last: Value) -> RowOf:
        """The row with the window of columns that its products may be in."""
        b = f.b
        inits = [f.limit("columns"), b.const(0), b.const(0)]
        with b.for_(first, last, inits=inits) as entry:
            low, end, products = entry.args
            start, stop = f.row(f.index_at("a_index", entry.iv))
            some = start < stop
            lowest = f.index_at("b_index", b.select(some, start, 0))
            highest = f.index_at("b_index", b.select(some, stop - 1, 0)) + 1
            entry.yield_(
                b.select(some, b.min(low, lowest), low),
                b.select(some, b.max(end, highest), end),
                products + (stop - start),
            )
        low, end, products = entry.results
        return RowOf(first, last, low, end - low, products)
