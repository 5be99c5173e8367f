"""Bounds of the keys of pages, and the choice of the pages that a query looks at.

See `sparse_attn.append_bounds` and `select_pages`. The choice reads the bounds of the pages before
a query, not their keys.
"""

from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f32, i32, vec
from nybble.backends.cpu.kernels.loops import padded_rows

LANES = 16
_VECTOR = vec(LANES, f32)
_NEVER = float("-inf")


@dataclass(frozen=True)
class PageBounds:
    """Bounds f32 [kv_heads, pages, 2 * head_dim] of pages of `size` keys: least, then largest."""

    kv_heads: int
    head_dim: int
    pages: int
    size: int

    def __post_init__(self) -> None:
        if self.head_dim % LANES:
            raise ValueError(f"head size {self.head_dim} is not a multiple of {LANES}")

    @property
    def buffer(self) -> BufferSpec:
        """bounds."""
        return BufferSpec("bounds", self.kv_heads * self.pages * 2 * self.head_dim, f32)

    def place(self, head: Value, page: Value) -> Value:
        """Index of the least components; the largest are head_dim further on."""
        return (head * self.pages + page) * (2 * self.head_dim)


@dataclass(frozen=True)
class AppendBounds:
    """rows f32 [n, kv_heads * d] at pos .. -> bounds, in place. Shared out by heads."""

    bounds: PageBounds
    rows: int

    @property
    def buffers(self) -> list[BufferSpec]:
        """rows, bounds."""
        width = self.bounds.kv_heads * self.bounds.head_dim
        return [BufferSpec("rows", padded_rows(self.rows) * width, f32), self.bounds.buffer]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        rows, held, form = *b.buffers, self.bounds
        n = b.const(1) if self.rows == 1 else b.n
        with b.for_(*b.partition(form.kv_heads)) as head, b.for_(0, n) as row:
            at = b.pos + row.iv
            is_first = (at % form.size).eq(0)
            place = form.place(head.iv, at // form.size)
            source = (row.iv * form.kv_heads + head.iv) * form.head_dim
            for offset in range(0, form.head_dim, LANES):
                key = rows.vload(source + offset, LANES)
                for side, join in ((0, b.min), (form.head_dim, b.max)):
                    old = held.vload(place + (side + offset), LANES)
                    held.vstore(b.select(is_first, key, join(old, key)), place + (side + offset))
        return b.finish()


@dataclass(frozen=True)
class SelectPages:
    """q f32 [n, q_heads * d], bounds -> list i32 [kv_heads, n, count].

    parts: bounds of a page. Shared out by (row, head).
    """

    bounds: PageBounds
    q_heads: int
    rows: int
    count: int
    parts: int
    threads: int

    @property
    def size(self) -> int:
        """Keys of a page."""
        return self.bounds.size * self.parts

    @property
    def pages(self) -> int:
        """Whole pages that there are bounds of."""
        return -(-self.bounds.pages // self.parts)

    @property
    def buffers(self) -> list[BufferSpec]:
        """q, bounds, list, scratch."""
        form, rows = self.bounds, padded_rows(self.rows)
        return [
            BufferSpec("q", rows * self.q_heads * form.head_dim, f32),
            form.buffer,
            BufferSpec("list", form.kv_heads * rows * self.count, i32),
            BufferSpec("scratch", self.threads * self.pages, f32),
        ]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        heads = self.bounds.kv_heads
        n = b.const(1) if self.rows == 1 else b.n
        with b.for_(*b.partition(n * heads)) as unit:
            row, head = unit.iv // heads, unit.iv % heads
            own = (b.pos + row) // self.size
            with b.for_(0, own) as page:
                score = self._score(b, row, head, page.iv)
                b.buffer("scratch").store(score, b.tid * self.pages + page.iv)
            first = (head * n + row) * self.count
            b.buffer("list").store(b.from_index(own, i32), first)
            with b.for_(1, self.count) as entry:
                b.buffer("list").store(self._best(b, own), first + entry.iv)
        return b.finish()

    def _score(self, b: KernelBuilder, row: Value, head: Value, page: Value) -> Value:
        """The largest score that a key of a page can have with any query of the group."""
        group, dim = self.q_heads // self.bounds.kv_heads, self.bounds.head_dim
        first = (row * self.q_heads + head * group) * dim
        queries, held = b.buffer("q"), b.buffer("bounds")
        start = [b.const(_NEVER, f32)]
        with b.for_(0, self.parts, inits=start) as part:
            place = self.bounds.place(head, page * self.parts + part.iv)
            with b.for_(0, group, inits=part.args) as member:
                total = b.const(0.0, _VECTOR)
                for offset in range(0, dim, LANES):
                    query = queries.vload(first + member.iv * dim + offset, LANES)
                    least, most = (held.vload(place + (side + offset), LANES) for side in (0, dim))
                    total = total + b.max(query * most, query * least)
                member.yield_(b.max(member.args[0], b.reduce("add", total)))
            part.yield_(*member.results)
        return part.results[0]

    def _best(self, b: KernelBuilder, own: Value) -> Value:
        """The page of the largest score that is not taken yet, which it then is; -1 for none."""
        scratch, base = b.buffer("scratch"), b.tid * self.pages
        start = [b.const(-1, i32), b.const(_NEVER, f32)]
        with b.for_(0, own, inits=start) as loop:
            page, most = loop.args
            score = scratch.load(base + loop.iv)
            more = score > most
            here = b.from_index(loop.iv, i32)
            loop.yield_(b.select(more, here, page), b.select(more, score, most))
        found = loop.results[0]
        with b.if_(found >= 0):
            scratch.store(b.const(_NEVER, f32), base + b.to_index(found))
        return found
