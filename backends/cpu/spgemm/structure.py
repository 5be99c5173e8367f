"""A kernel that looks at places only: rows are cut into chunks of about equal work."""

from dataclasses import dataclass

from xdsl.dialects.builtin import IntegerType
from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, i64
from nybble.backends.cpu.spgemm.spec import ANY

LIMITS = ("columns", "room", "work")
"""Cells of `limits`: columns of B; the most entries, and work, of a chunk of several rows."""
CHUNK = ("first", "bound", "work")
"""Cells of a chunk: its first row, the most entries of its result, and its work."""
TOTALS = ("chunks", "longest")
"""Cells of a thread's totals; longest: the most products of a row."""
ENTRY_WORK = 2
ROW_WORK = 4
"""What an entry of A and a row cost, in products."""


@dataclass(frozen=True)
class Cut:
    """a_start, a_index, b_start, m_start if masked; limits; rows i64 [threads + 1] -> chunks i64
    [rows of A, 3], those of a thread from the number of its first row on; totals i64 [threads, 2].

    masked: a row of the result has at most as many entries as that of a mask, and none where the
    mask has none.
    """

    index_bits: int
    masked: bool = False

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        kind = IntegerType(self.index_bits)
        starts = ["a_start", "a_index", "b_start", *(["m_start"] if self.masked else [])]
        tables = ("limits", "rows", "chunks", "totals")
        specs = [BufferSpec(one, ANY, kind) for one in starts]
        b = KernelBuilder(name, [*specs, *(BufferSpec(one, ANY, i64) for one in tables)])
        columns, room, work = (b.to_index(b.buffer("limits").load(i)) for i in range(len(LIMITS)))
        lo, hi = (b.to_index(b.buffer("rows").load(b.tid + i)) for i in (0, 1))
        with b.if_(lo < hi):
            self._store(b, lo, {"first": lo})
        with b.for_(lo, hi, inits=[b.const(0)] * 4) as row:
            number, bound, done, longest = row.args
            made, most, cost = self._of_row(b, row.iv, columns)
            full = ((bound + most > room) | (done + cost > work)) & (done > 0)
            with b.if_(full):
                self._store(b, lo + number, {"bound": bound, "work": done})
                self._store(b, lo + number + 1, {"first": row.iv})
            bound, done = (b.select(full, b.const(0), one) for one in (bound, done))
            number = b.select(full, number + 1, number)
            row.yield_(number, bound + most, done + cost, b.max(longest, made))
        number, bound, done, longest = row.results
        with b.if_(lo < hi):
            self._store(b, lo + number, {"bound": bound, "work": done})
        chunks = b.select(lo < hi, number + 1, 0)
        for i, total in enumerate((chunks, longest)):
            b.buffer("totals").store(b.from_index(total, i64), b.tid * len(TOTALS) + i)
        return b.finish()

    def _of_row(self, b: KernelBuilder, row: Value, columns: Value) -> tuple[Value, Value, Value]:
        """The products of a row, the most entries of its result, and its work."""
        a_start, a_index, b_start = (b.buffer(one) for one in ("a_start", "a_index", "b_start"))
        first, last = (b.to_index(a_start.load(row + i)) for i in (0, 1))
        if self.masked:
            ends = [b.to_index(b.buffer("m_start").load(row + i)) for i in (0, 1)]
            columns = ends[1] - ends[0]
            last = b.select(columns > 0, last, first)
        with b.for_(first, last, inits=[b.const(0)]) as entry:
            k = b.to_index(a_index.load(entry.iv))
            begin, end = (b.to_index(b_start.load(k + i)) for i in (0, 1))
            entry.yield_(entry.args[0] + (end - begin))
        products = entry.results[0]
        cost = products + (last - first) * ENTRY_WORK + ROW_WORK
        return products, b.min(products, columns), cost

    def _store(self, b: KernelBuilder, chunk: Value, cells: dict[str, Value]) -> None:
        for name, value in cells.items():
            at = chunk * len(CHUNK) + CHUNK.index(name)
            b.buffer("chunks").store(b.from_index(value, i64), at)
