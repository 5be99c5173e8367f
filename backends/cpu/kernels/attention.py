"""Attention over the KV cache under a mask: prefill (many rows) and decode (one row).

GQA and an optional logit soft cap. Only blocks with a visible key are computed, and only those of
which a key is hidden are masked. A non-finite value in a block that a row visits spoils that row
even where the key is hidden. A row that sees no key is 0; one at position -1, before the text, is
such a row: the cache is empty.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.isa import NEON, FourWay, Isa
from nybble.backends.cpu.kernels.attention_codes import CodedTile, StagedCodes
from nybble.backends.cpu.kernels.attention_integers import IntegerTile
from nybble.backends.cpu.kernels.attention_merge import PartialRows
from nybble.backends.cpu.kernels.attention_parts import PartsShape
from nybble.backends.cpu.kernels.attention_shape import ACCUMULATORS, RegisterTile, TileShape
from nybble.backends.cpu.kernels.attention_tile import NOTHING_SEEN, Tile
from nybble.backends.cpu.kernels.attention_walk import KeyList, Walk, WalkShape
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Operand, Value, f32
from nybble.backends.cpu.kernels.kv import KEY_BLOCK, PADDING, KvCache
from nybble.backends.cpu.kernels.kv_pages import Cache, KvPages
from nybble.backends.cpu.kernels.loops import padded_rows
from nybble.backends.cpu.kernels.mathlib import LOG2_E
from nybble.dialects.sparse_attn.masks import Causal, Mask

CAUSAL = Causal()
CENTRE = 0.0
"""The fixed number in the place of a maximum (FlashDecoding++), of logits in base 2."""


CodesTile = CodedTile | StagedCodes
Tiles = tuple[Tile, CodesTile | None]
"""That of numbers, and that of codes where the cache has them; they share their scratch."""
Step = Callable[[Tile, Value, Value], None]
Sees = Callable[[Value, Value], Value]
Restriction = tuple[Value, Sees]


def _before(b: KernelBuilder, pages: KvPages, query: Value, key: Value) -> Value:
    return key < pages.boundary_lanes(b, query)


def _after(b: KernelBuilder, pages: KvPages, query: Value, key: Value) -> Value:
    exact = key >= pages.boundary_lanes(b, query)
    return exact | (key < pages.format.pinned) if pages.format.pinned else exact


def _both_see(one: Sees, other: Sees, query: Value, key: Value) -> Value:
    return one(query, key) & other(query, key)


@dataclass(frozen=True)
class Attention:
    """q f32 [n, q_heads * d], k, v -> out f32 like q.

    rows: the most rows of a call; 1 makes the decode kernel. scale: of the logits. threads: the
    most threads that will call it (each has its slice of `scratch`). splits: parts that a decode
    kernel cuts the keys of a head into; with more than 1 it writes `partial` for AttentionMerge
    instead of `out`. accumulators, registers: see TileShape. isa: whose products
    of integers are used; that of the default has none. softmax: see `sparse_attn` ops.
    parts: `max`, `sum`, `acc` (see PartsShape) instead of `out`. shared: all rows stand at `pos`.
    row_block: positions of a tile, None for as many as make 32 to 128 query rows. The result
    depends on `splits`, never on the number of threads.
    """

    cache: Cache
    q_heads: int
    rows: int
    scale: float
    threads: int
    mask: Mask = CAUSAL
    softcap: float | None = None
    splits: int = 1
    key_block: int = 64
    accumulators: int = ACCUMULATORS
    lists: tuple[KeyList, ...] = ()
    softmax: str = "online"
    parts: bool = False
    shared: bool = False
    row_block: int | None = None
    registers: RegisterTile | None = None
    isa: Isa = NEON

    def __post_init__(self) -> None:
        if self.q_heads % self.cache.kv_heads:
            raise ValueError(
                f"{self.q_heads} query heads do not divide over {self.cache.kv_heads} KV heads"
            )
        if self.softcap is not None and not self.softcap > 0:
            raise ValueError(f"soft cap {self.softcap} is not positive")
        if self.splits < 1 or (self.splits > 1 and (self.rows > 1 or self.parts)):
            raise ValueError(f"{self.splits} splits of {self.rows} rows: only decode can split")
        if self.key_block % KEY_BLOCK or PADDING % self.key_block:
            raise ValueError(f"key block {self.key_block} is not 16, 32, 64 or 128")
        if self.pages is not None and self.pages.format.page % self.key_block:
            raise ValueError(
                f"key block {self.key_block} does not divide the pages of {self.pages.format}"
            )
        for one in self.walk.lists:
            if one.of_each_row and self.shape.row_block > 1:
                raise ValueError(f"{one.selection} has a list for each row of a tile of many")
            if one.rows > 1 and one.selection.size < self.shape.row_block:
                raise ValueError(
                    f"{one.selection} has a list for each run of {one.selection.size} queries,"
                    f" fewer than the {self.shape.row_block} of a tile"
                )

    @property
    def pages(self) -> KvPages | None:
        """The cache, if it has codes."""
        return self.cache if isinstance(self.cache, KvPages) else None

    @property
    def exact(self) -> KvCache:
        """The part of the cache that has none."""
        return self.cache.exact if isinstance(self.cache, KvPages) else self.cache

    @property
    def integers(self) -> bool:
        """Whether codes are multiplied as such."""
        return self.pages is not None and self.pages.format.integers

    @property
    def walk(self) -> WalkShape:
        """The mask over blocks of keys."""
        return WalkShape(self.mask, self.cache, self.key_block, self.lists)

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.q_heads // self.cache.kv_heads

    @property
    def shape(self) -> TileShape:
        """The tile: some query rows in prefill, the group's heads in decode.

        Products of integers two by two are summed twice, in words of 16 bits and of 32.
        """
        corrected = self.pages is not None and self.pages.format.is_corrected
        twice = self.integers and not isinstance(self.isa.int_dot, FourWay)
        sums = max(1, self.accumulators // 2) if twice else self.accumulators
        staged = (self.rows > 1 and self.cache.dtype != "f32") or corrected
        return TileShape(
            self.exact,
            self.group,
            self.row_block or self.default_row_block,
            self.key_block,
            staged,
            sums,
            self.registers,
            folded=self.integers or (self.pages is not None and not staged),
            apart=not self.mask.is_band,
        )

    @property
    def default_row_block(self) -> int:
        """Positions that make about 128 query rows, among which keys that come from far are read
        once; at most 32, and as many as a list has one row for."""
        if self.rows == 1 or any(one.of_each_row for one in self.lists):
            return 1
        runs = [one.selection.size for one in self.lists if one.rows > 1]
        return min(32, max(4, 1 << int(math.log2(128 / self.group))), *runs)

    @property
    def width(self) -> int:
        """Elements of a row of q."""
        return self.q_heads * self.cache.head_dim

    @property
    def partial(self) -> PartialRows:
        """The layout of the splits' results."""
        return PartialRows(self.q_heads, self.cache.head_dim, self.splits)

    @property
    def part(self) -> PartsShape:
        """The layout of max, sum and acc."""
        return PartsShape(self.q_heads, self.cache.head_dim, self.rows)

    @property
    def buffers(self) -> list[BufferSpec]:
        """q, k, v, lists, out (or partial), scratch, `walk` where the mask needs it."""
        size = padded_rows(self.rows) * self.width
        out = [BufferSpec("out", size, f32)] if self.splits == 1 else [self.partial.buffer]
        out = self.part.buffers() if self.parts else out
        scratch = BufferSpec("scratch", self.threads * self.shape.scratch, f32)
        query, lists = BufferSpec("q", size, f32), len(self.lists)
        walk = self.walk.buffers(self.threads)
        return [query, *self.cache.buffers, *walk[:lists], *out, scratch, *walk[lists:]]

    def build(self, name: str) -> FuncOp:
        """The kernel. Items (row block, key head, split) go round the threads in turn."""
        b = KernelBuilder(name, self.buffers)
        log2_cap = None if self.softcap is None else self.softcap * LOG2_E
        tile = Tile(b, self.shape, log2_cap)
        coded = None
        if self.pages is not None:
            coded = self._coded_tile(b, log2_cap, self.pages)
        tiles = tile, coded
        heads, block = self.cache.kv_heads, self.shape.row_block
        n = b.const(1) if self.rows == 1 else b.n
        blocks = (n + (block - 1)) // block
        with b.for_(b.tid, blocks * (heads * self.splits), b.nth) as item:
            first_row = item.iv // (heads * self.splits) * block
            for one in filter(None, tiles):
                one.head = item.iv % heads
            split = item.iv // heads % self.splits
            rows = b.min(n - first_row, b.const(block))
            self._load(tile, first_row, rows)
            position, apart = (b.pos, b.const(1)) if self.shared else (b.pos + first_row, rows)
            self._attend(tiles, position, apart, split)
            self._store(tile, first_row, rows, split)
        return b.finish()

    def _coded_tile(self, b: KernelBuilder, log2_cap: float | None, pages: KvPages) -> CodesTile:
        if pages.format.integers:
            return IntegerTile(b, self.shape, log2_cap, pages, self.isa)
        kind = StagedCodes if self.shape.staged else CodedTile
        return kind(b, self.shape, log2_cap, pages)

    def _row_at(self, tile: Tile, row: Value, member: Value) -> Value:
        head = tile.head * self.group + member
        return row * self.width + head * self.cache.head_dim

    def _load(self, tile: Tile, first_row: Value, rows: Value) -> None:
        """Q of the tile, scaled; a tile that is not full repeats its last row."""
        b = tile.b
        scale = self.scale * LOG2_E if self.softcap is None else self.scale / self.softcap
        tile.clear(*([CENTRE] if self.softmax == "unified" else []))
        block = self.shape.row_block
        with b.for_(0, self.group) as member, b.for_(0, block) as row:
            source = first_row + b.min(row.iv, rows - 1)
            at = self._row_at(tile, source, member.iv)
            tile.load_query(member.iv * block + row.iv, b.buffer("q"), at, scale)

    def _attend(self, tiles: Tiles, position: Value, rows: Value, split: Value) -> None:
        tile, _ = tiles
        b = tile.b
        walk = Walk(b, self.walk)
        lo, hi = walk.plan(tile.head, position, rows)
        if self.splits > 1:
            begin, count = lo, hi - lo
            lo = begin + split * count // self.splits
            hi = begin + (split + 1) * count // self.splits
        each = partial(self._each_block, tiles, walk, (lo, hi))
        if self.softmax == "two_pass":
            each(Tile.peaks)
        each(Tile.online if self.softmax == "online" else Tile.around)
        if self.softmax == "unified":
            with b.if_(tile.out_of_range()):
                tile.clear()
                each(Tile.online)

    def _each_block(
        self, tiles: Tiles, walk: Walk, bounds: tuple[Value, Value], step: Step
    ) -> None:
        """Compute the logits of each block of a walk, then do a step with them."""
        exact, coded = tiles
        b, size = exact.b, self.shape.key_block
        with b.for_(*bounds) as loop:
            block = walk.block(loop.iv)
            ahead = walk.ahead(loop.iv, bounds)
            if coded is None:
                self._one_block(exact, walk, (block, ahead), step)
                return
            pages, first_key = coded.pages, block * size
            low, high = (pages.boundary(b, one) for one in (walk.position, walk.end - 1))
            mixed = (first_key >= low) & (first_key < high)
            coded_here, exact_here = first_key < high, first_key >= low
            if pages.format.pinned:
                is_pinned = first_key < pages.format.pinned
                coded_here &= first_key >= pages.format.pinned
                exact_here |= is_pinned
            with b.if_(coded_here):
                before = partial(_before, b, pages)
                self._one_block(coded, walk, (block, ahead), step, (mixed, before))
            with b.if_(exact_here):
                after = partial(_after, b, pages)
                self._one_block(exact, walk, (block, ahead), step, (mixed, after))

    def _one_block(
        self,
        tile: Tile,
        walk: Walk,
        place: tuple[Value, Operand],
        step: Step,
        only: Restriction | None = None,
    ) -> None:
        """A block by one of the tiles.

        place: its number, and how far the next one is. only: whether some rows do not see this
        tile's form of it, and which pairs of query and key do.
        """
        b, size = tile.b, self.shape.key_block
        block, tile.asked.blocks = place
        first_key = block * size
        keys = b.min(walk.end - first_key, b.const(size))
        tile.stage(first_key, keys)
        tile.scores(first_key)
        edge, sees = walk.edge(block), partial(walk.sees, block)
        if only is not None and self.rows > 1:
            mixed, form = only
            edge, sees = edge | mixed, partial(_both_see, sees, form)
        with b.if_(edge):
            tile.mask(first_key, walk.position, sees, shared=self.shared)
        step(tile, first_key, keys)

    def _store(self, tile: Tile, first_row: Value, rows: Value, split: Value) -> None:
        b, block = tile.b, self.shape.row_block
        with b.for_(0, self.group) as member, b.for_(0, rows) as row:
            tile_row = member.iv * block + row.iv
            head = tile.head * self.group + member.iv
            if self.parts:
                self.part.write(tile, tile_row, (first_row + row.iv) * self.q_heads + head)
            elif self.splits > 1:
                self.partial.write(tile, tile_row, head * self.splits + split)
            else:
                self._finish(tile, tile_row, self._row_at(tile, first_row + row.iv, member.iv))

    def _finish(self, tile: Tile, tile_row: Value, at: Value) -> None:
        inverse = 1.0 / tile.total(tile_row)
        inverse = tile.b.select(tile.peak(tile_row) > NOTHING_SEEN, inverse, 0.0)
        inverse = tile.b.broadcast(inverse, KEY_BLOCK)
        for offset in range(0, self.cache.head_dim, KEY_BLOCK):
            tile.b.buffer("out").vstore(tile.output(tile_row, offset) * inverse, at + offset)
