"""Lists of blocks as attention reads them, of those that a mask's operand has.

An entry of the operand is the number of a block or -1, in any order, and may be there twice.
Kernels of attention read as many entries as are counted, each of which is another block.
"""

from dataclasses import dataclass

from xdsl.dialects.builtin import i32

from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.image import Access, Parameter
from nybble.backends.gpu.kernels.rows.machine import RowKernel, RowSpec, buffer, each_column

MOST_BLOCKS = 8192
"""Shared memory of a block of threads holds a word for each."""


@dataclass(frozen=True)
class ListsSpec(RowSpec):
    """block_list i32 [heads, copies, blocks] and block_counts [heads, copies] of i32 [heads,
    entries]. blocks: of the context.
    """

    heads: int
    copies: int
    entries: int
    blocks: int

    @property
    def name(self) -> str:
        """See RowSpec."""
        return f"lists_{self.heads}x{self.copies}x{self.entries}_{self.blocks}"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """entries, block_list, block_counts."""
        rows = self.heads * self.copies
        return (
            buffer("entries", "i32", Access.READ, self.heads, self.entries),
            buffer("block_list", "i32", Access.WRITE, rows, self.blocks),
            buffer("block_counts", "i32", Access.WRITE, rows, 1),
        )


def lists_kernel(spec: ListsSpec, name: str = "") -> RowKernel:
    """The kernel, under a name if not its own: a block of threads for each list that it writes.

    Blocks are marked in shared memory; each that is marked goes behind those before it.
    """
    b = GpuBuilder(name or spec.name, spec.parameters)
    entries, found, counts = b.parameters
    zero, row = b.const(0, i32), b.block_id()
    given = b.offset(entries, row // spec.copies * (spec.entries * 4))
    mine = b.offset(found, row * (spec.blocks * 4))
    with each_column(b, spec.blocks) as block:
        b.store(zero, b.offset(b.shared(), block * 4))
    b.barrier()
    with each_column(b, spec.entries) as index:
        entry = b.load(b.offset(given, index * 4), i32)
        with b.if_((entry >= 0) & (entry < spec.blocks)):
            place = b.offset(b.shared(), entry * 4)
            b.ptx("{.reg .b32 r; atom.shared.or.b32 r, [$0], 1;}", (), [place], effects=True)
    b.barrier()
    with each_column(b, spec.blocks) as block:
        with b.for_(zero, block, 1, [zero]) as before:
            seen = b.load(b.offset(b.shared(), before.iv * 4), i32)
            before.yield_(before.args[0] + seen)
        marked = b.load(b.offset(b.shared(), block * 4), i32)
        (rank,) = before.results
        with b.if_(marked.ne(0)):
            b.store(block, b.offset(mine, rank * 4))
        with b.if_(block.eq(spec.blocks - 1)):
            b.store(rank + marked, b.offset(counts, row * 4))
            with b.if_((rank + marked).eq(0)):
                b.store(zero, mine)  # an empty list begins with a block, too
    return RowKernel(b, spec.parameters, spec.heads * spec.copies, spec.blocks * 4)
