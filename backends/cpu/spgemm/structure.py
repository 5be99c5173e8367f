"""Kernels that look at places only: whether a matrix is in order, and what a product will take."""

from dataclasses import dataclass

from xdsl.dialects.builtin import IntegerType
from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, i64
from nybble.backends.cpu.spgemm.spec import ANY


@dataclass(frozen=True)
class Check:
    """start [rows + 1], index [nnz], limits i64 [2]: rows, columns -> faults i64 [threads].

    faults: how many columns of a thread's rows are out of range or not above the one before. Starts
    must be in order.
    """

    index_bits: int

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        kind = IntegerType(self.index_bits)
        specs = [BufferSpec("start", ANY, kind), BufferSpec("index", ANY, kind)]
        b = KernelBuilder(
            name, [*specs, BufferSpec("limits", 2, i64), BufferSpec("faults", ANY, i64)]
        )
        start, index, limits, faults = b.buffers
        columns = limits.load(1)
        lo, hi = b.partition(b.to_index(limits.load(0)))
        with b.for_(lo, hi, inits=[b.const(0, i64)]) as row:
            first, last = (b.to_index(start.load(row.iv + i)) for i in (0, 1))
            with b.for_(first, last, inits=[b.const(-1, i64), row.args[0]]) as entry:
                before, found = entry.args
                column = index.load(entry.iv)
                wide = column if kind == i64 else b.sext(column, i64)
                bad = (wide <= before) | (wide >= columns)
                entry.yield_(wide, found + b.zext(bad, i64))
            row.yield_(entry.results[1])
        faults.store(row.results[0], b.tid)
        return b.finish()


@dataclass(frozen=True)
class Work:
    """a_start, a_index, b_start, limits i64 [1]: rows of A -> products i64 [rows], of each row."""

    index_bits: int

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        kind = IntegerType(self.index_bits)
        names = ("a_start", "a_index", "b_start")
        specs = [BufferSpec(one, ANY, kind) for one in names]
        extra = [BufferSpec("limits", 2, i64), BufferSpec("products", ANY, i64)]
        b = KernelBuilder(name, [*specs, *extra])
        a_start, a_index, b_start, limits, products = b.buffers
        lo, hi = b.partition(b.to_index(limits.load(0)))
        with b.for_(lo, hi) as row:
            first, last = (b.to_index(a_start.load(row.iv + i)) for i in (0, 1))
            with b.for_(first, last, inits=[b.const(0, i64)]) as entry:
                k = b.to_index(a_index.load(entry.iv))
                count = b_start.load(k + 1) - b_start.load(k)
                wide = count if kind == i64 else b.sext(count, i64)
                entry.yield_(entry.args[0] + wide)
            products.store(entry.results[0], row.iv)
        return b.finish()
