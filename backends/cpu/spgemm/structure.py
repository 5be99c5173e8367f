"""A kernel that looks at places only: how many products each row of a result takes."""

from dataclasses import dataclass

from xdsl.dialects.builtin import IntegerType
from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, i64
from nybble.backends.cpu.spgemm.spec import ANY


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
