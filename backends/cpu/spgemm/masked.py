"""Products at the places of a mask alone, row by row: what lies elsewhere is never added up.

A row whose mask is empty is not looked at. In any other, an entry of A and a row of B meet in one
of two ways, whichever looks at less: the row of B is walked, and a table of the mask's columns says
where each product goes; or, where the row is far longer than the mask's, the places of the mask are
searched in it (Milakovic et al., Parallel Algorithms for Masked Sparse Matrix-Matrix Products,
2022, compare such ways).
"""

from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, i8, i64
from nybble.backends.cpu.spgemm.frame import Frame
from nybble.backends.cpu.spgemm.spec import ANY, Spec
from nybble.backends.cpu.spgemm.turns import Turns

SEARCHED = 16
"""A row of B that is so many times as long as the mask's is searched rather than walked."""
SIZES = ("columns", "longest")
"""Cells of `sizes`: columns of the result; places of the mask's longest row."""


@dataclass(frozen=True)
class _Row:
    """A row of the mask: places [first, last), count of them; base: of this thread's tables."""

    first: Value
    count: Value
    base: Value


@dataclass(frozen=True)
class Masked:
    """A, B and the places of a mask (m_start, m_index); what `Turns` needs; slots of the index
    type [threads, columns], zeros, left as zeros; sums [threads, longest + 1], flags i8 as many ->
    the result; tested i64 [threads]: entries of B or places of the mask that were looked at.
    """

    spec: Spec

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self._buffers())
        f = Frame(b, self.spec)
        f["tested"].store(b.const(0, i64), b.tid)
        f.turns.run(lambda row: self._append(f, row))
        return b.finish()

    def _append(self, f: Frame, number: Value) -> None:
        b = f.b
        first, last = f.index_at("m_start", number), f.index_at("m_start", number + 1)
        row = _Row(first, last - first, b.tid * (f.index_at("sizes", 1) + 1))
        bounds = f.index_at("a_start", number), f.index_at("a_start", number + 1)
        with b.if_((first < last) & (bounds[0] < bounds[1])):
            self._admit(f, row)
            self._add(f, row, bounds)
            self._drain(f, row)

    def _buffers(self) -> list[BufferSpec]:
        spec = self.spec
        mask = [spec.indices("m_start"), spec.indices("m_index")]
        tables = [spec.indices("slots"), spec.sums("sums"), BufferSpec("flags", ANY, i8)]
        extra = [BufferSpec("sizes", len(SIZES), i64), BufferSpec("tested", ANY, i64)]
        return [*Frame.operands(spec), *mask, *Turns.buffers(spec), *tables, *extra]

    def _slot(self, f: Frame, column: Value) -> Value:
        """Where the slot of a column is, of this thread."""
        return f.b.tid * f.index_at("sizes", 0) + column

    def _admit(self, f: Frame, row: _Row) -> None:
        """Number the columns of the mask from 1, and clear their sums."""
        b = f.b
        with b.for_(0, row.count) as step:
            slot = self._slot(f, f.index_at("m_index", row.first + step.iv))
            f["slots"].store(b.from_index(step.iv + 1, self.spec.index), slot)
            f["sums"].store(f.ring.zero(), row.base + step.iv)
            f["flags"].store(b.const(0, i8), row.base + step.iv)

    def _add(self, f: Frame, row: _Row, bounds: tuple[Value, Value]) -> None:
        b = f.b
        with b.for_(*bounds, inits=[b.const(0)]) as entry:
            a = f.ring.wide(f["a_value"].load(entry.iv))
            first, last = f.row(f.index_at("a_index", entry.iv))
            length = last - first
            searched = length > row.count * SEARCHED
            with b.if_(searched) as branch:
                self._search(f, row, a, (first, last))
            with branch.otherwise():
                self._walk(f, row, a, (first, last))
            entry.yield_(entry.args[0] + b.select(searched, row.count, length))
        tested = f.index_at("tested", b.tid) + entry.results[0]
        f["tested"].store(b.from_index(tested, i64), b.tid)

    def _walk(self, f: Frame, row: _Row, a: Value, bounds: tuple[Value, Value]) -> None:
        with f.b.for_(*bounds) as step:
            number = f.index_at("slots", self._slot(f, f.index_at("b_index", step.iv)))
            with f.b.if_(number > 0):
                self._accumulate(f, a, step.iv, row.base + number - 1)

    def _search(self, f: Frame, row: _Row, a: Value, bounds: tuple[Value, Value]) -> None:
        """Look each place of the mask up among the columns of a row of B; the next one is after."""
        b, (first, last) = f.b, bounds
        with b.for_(0, row.count, inits=[first]) as step:
            wanted = f.index_at("m_index", row.first + step.iv)
            with b.while_([step.args[0], last], lambda ends: ends[0] < ends[1]) as half:
                low, high = half.args
                middle = (low + high) >> 1
                below = f.index_at("b_index", middle) < wanted
                half.yield_(b.select(below, middle + 1, low), b.select(below, high, middle))
            at = half.results[0]
            with b.if_(at < last), b.if_(f.index_at("b_index", at).eq(wanted)):
                self._accumulate(f, a, at, row.base + step.iv)
            step.yield_(at)

    def _accumulate(self, f: Frame, a: Value, at: Value, place: Value) -> None:
        term = f.ring.multiply(a, f.ring.load_wide(f["b_value"], at))
        f["sums"].store(f.ring.add(f["sums"].load(place), term), place)
        f["flags"].store(f.b.const(1, i8), place)

    def _drain(self, f: Frame, row: _Row) -> None:
        """Append the places where products met, in the order of the mask; clear the slots."""
        b = f.b
        with b.for_(0, row.count, inits=[f.turns.cursor]) as step:
            column = f["m_index"].load(row.first + step.iv)
            f["out_index"].store(column, step.args[0])
            f["out_value"].store(f["sums"].load(row.base + step.iv), step.args[0])
            zero = b.const(0, self.spec.index)
            f["slots"].store(zero, self._slot(f, b.to_index(column)))
            met = b.to_index(b.zext(f["flags"].load(row.base + step.iv), i64))
            step.yield_(step.args[0] + met)
        f.turns.move(step.results[0])
