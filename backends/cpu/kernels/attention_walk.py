"""Which blocks of keys a tile of queries reads, and which of them need a mask: code of a mask.

Under a band (causal, window) they follow each other. Under other masks a scan over all blocks up to
the queries writes the numbers of those in which a query may see a key into a thread's `walk`
buffer; it costs a few instructions a block, where reading one costs thousands. Keys of lists are
first marked there, block by block.
"""

from dataclasses import dataclass

from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, i32
from nybble.backends.cpu.kernels.kv import KEY_BLOCK
from nybble.backends.cpu.kernels.kv_pages import Cache
from nybble.backends.cpu.kernels.loops import padded_rows
from nybble.dialects.sparse_attn.masks import Mask, Pair, Selected, Tile
from nybble.dialects.sparse_attn.masks.mask import both

FIRST, LAST = 1, 2
"""Marks of a block that is listed for the first query of a tile, and for the last one."""


@dataclass(frozen=True)
class KeyList:
    """The list of a selection, i32 [heads][rows][entries]; see `masks.selected`.

    of_each_row: whether a row is that of a query, of as many as a call has.
    """

    selection: Selected
    rows: int
    entries: int
    of_each_row: bool = False

    def buffer(self, index: int, heads: int) -> BufferSpec:
        """Its buffer, the one of this number."""
        rows = padded_rows(self.rows) if self.of_each_row else self.rows
        return BufferSpec(f"list{index}", heads * rows * self.entries, i32)


@dataclass(frozen=True)
class WalkShape:
    """A mask over the blocks of a cache. key_block: keys of a block; lists: of the selections."""

    mask: Mask
    cache: Cache
    key_block: int
    lists: tuple[KeyList, ...] = ()

    def __post_init__(self) -> None:
        if tuple(one.selection for one in self.lists) != self.mask.selections:
            raise ValueError(f"{len(self.lists)} lists for mask {self.mask}")
        for one in self.lists:
            if one.selection.size % self.key_block:
                raise ValueError(
                    f"{one.selection} lists runs of {one.selection.size} keys, which is no multiple"
                    f" of {self.key_block}"
                )

    @property
    def blocks(self) -> int:
        """Blocks of the whole cache."""
        return self.cache.padded // self.key_block

    @property
    def stride(self) -> int:
        """Elements of `walk` that a thread needs; none under a band."""
        return 0 if self.mask.is_band else self.blocks * (1 + len(self.lists))

    def buffers(self, threads: int) -> list[BufferSpec]:
        """The lists, then `walk` if there is need for it."""
        lists = [one.buffer(i, self.cache.kv_heads) for i, one in enumerate(self.lists)]
        walk = BufferSpec("walk", threads * self.stride, i32)
        return lists if self.mask.is_band else [*lists, walk]


class Walk:
    """Emits the walk of one item: `plan` it, then go through `lo .. hi` of what that gave."""

    def __init__(self, b: KernelBuilder, shape: WalkShape):
        self.b = b
        self.shape = shape
        self._base = b.tid * shape.stride
        self.head = b.const(0)
        self.position = b.const(0)
        self.end = b.const(0)

    def plan(self, head: Value, position: Value, rows: Value) -> tuple[Value, Value]:
        """Bounds lo, hi of the walk of queries position .. position + rows of a key head."""
        b, size = self.b, self.shape.key_block
        self.head, self.position, self.end = head, position, position + rows
        begin = b.const(0)
        span = self.shape.mask.span
        if span is not None:
            hidden = position + 1
            begin = b.select(hidden > span, hidden - span, 0) // size
        end = (self.end + (size - 1)) // size
        if self.shape.mask.is_band:
            return begin, end
        for index in range(len(self.shape.lists)):
            self._mark(index, end)
        return b.const(0), self._scan(begin, end)

    def block(self, index: Value) -> Value:
        """The number of the block at a place of the walk."""
        if self.shape.mask.is_band:
            return index
        return self.b.to_index(self.b.buffer("walk").load(self._base + index))

    def ahead(self, index: Value, bounds: tuple[Value, Value]) -> Value | int:
        """Blocks from the one at a place of a walk to the next one; after the last one comes the
        first of this thread's next head, if that walks alike."""
        if self.shape.mask.is_band:
            return 1
        b, (lo, hi) = self.b, bounds
        is_last = index + 1 >= hi
        following = self.block(b.select(is_last, lo, index + 1))
        jump = b.select(is_last, b.nth * self.shape.blocks, 0)
        return following + jump - self.block(index)

    def edge(self, block: Value) -> Value:
        """Whether a query of the item does not see some key of a block."""
        b, size = self.b, self.shape.key_block
        every = self.shape.mask.every(self._tile(block))
        whole = both(every, (block + 1) * size <= self.position + 1)
        return b.bit(True) if whole is False else b.select(whole, b.bit(False), b.bit(True))

    def sees(self, block: Value, query: Value, key: Value) -> Value:
        """Which keys (a vector of positions, i32) of a block queries (another) see."""
        b = self.b
        listed: dict[Mask, Value] = {
            one.selection: self._listed(index, block, query)
            for index, one in enumerate(self.shape.lists)
        }
        head = b.broadcast(b.from_index(self.head, i32), KEY_BLOCK)
        seen = self.shape.mask.sees(Pair(query, key, head, listed))
        return both(key <= query, seen)

    # -- blocks in which something is seen

    def _tile(self, block: Value) -> Tile:
        size = self.shape.key_block
        marks = {one.selection: self._mark_of(i, block) for i, one in enumerate(self.shape.lists)}
        return Tile(
            first_query=self.position,
            end_query=self.end,
            first_key=block * size,
            end_key=self.b.min((block + 1) * size, self.end),
            head=self.head,
            listed={one: mark > 0 for one, mark in marks.items()},
            whole={one: mark > LAST for one, mark in marks.items()},
        )

    def _scan(self, begin: Value, end: Value) -> Value:
        """Write the blocks in which something may be seen; how many there are."""
        b, walk = self.b, self.b.buffer("walk")
        with b.for_(begin, end, inits=[b.const(0)]) as loop:
            count = loop.args[0]
            some = self.shape.mask.some(self._tile(loop.iv))
            walk.store(b.from_index(loop.iv, i32), self._base + count)
            more = b.const(1) if isinstance(some, bool) else b.select(some, b.const(1), 0)
            loop.yield_(count + more)
        return loop.results[0]

    # -- lists

    def _marks(self, index: int, block: Value) -> Value:
        return self._base + ((1 + index) * self.shape.blocks + block)

    def _mark_of(self, index: int, block: Value) -> Value:
        return self.b.buffer("walk").load(self._marks(index, block))

    def _mark(self, index: int, end: Value) -> None:
        """Mark the blocks of a list: those for the first query, and those for the last one."""
        b, walk, one = self.b, self.b.buffer("walk"), self.shape.lists[index]
        with b.for_(0, end) as block:
            walk.store(b.const(0, i32), self._marks(index, block.iv))
        if one.rows == 1 or one.of_each_row:
            row = self.position - b.pos if one.of_each_row else b.const(0)
            self._mark_row(index, row, FIRST | LAST, end)
            return
        start = self._run(index, b.pos)
        for mark, query in ((FIRST, self.position), (LAST, self.end - 1)):
            row = b.min(self._run(index, query) - start, b.const(one.rows - 1))
            self._mark_row(index, row, mark, end)

    def _run(self, index: int, query: Value) -> Value:
        """The run of queries of a list that a query is of; of one before the text, the first."""
        seen = self.b.select(query + 1 > 0, query, 0)  # indices are unsigned
        return seen // self.shape.lists[index].selection.size

    def _mark_row(self, index: int, row: Value, mark: int, end: Value) -> None:
        b, walk, one = self.b, self.b.buffer("walk"), self.shape.lists[index]
        ratio = one.selection.size // self.shape.key_block
        rows = b.n if one.of_each_row and one.rows > 1 else one.rows
        first = (self.head * rows + row) * one.entries
        with b.for_(0, one.entries) as entry:
            run = b.buffer(f"list{index}").load(first + entry.iv)
            with b.if_(run >= 0):
                block = b.to_index(run) * ratio
                with b.for_(block, b.min(block + ratio, end)) as inner:
                    at = self._marks(index, inner.iv)
                    walk.store(walk.load(at) | mark, at)

    def _listed(self, index: int, block: Value, query: Value) -> Value:
        """Whether a block is listed for each of a vector of queries."""
        b, one = self.b, self.shape.lists[index]
        marks = b.broadcast(self._mark_of(index, block), KEY_BLOCK)
        if one.rows > 1 and not one.of_each_row:
            first = b.broadcast(b.from_index(self._run(index, self.position), i32), KEY_BLOCK)
            run = b.max(query, b.const(0, query.type)) // one.selection.size
            marks = (marks >> (run - first)) & 1
        return marks > 0
