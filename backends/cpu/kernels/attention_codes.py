"""Tiles of an attention whose keys and values are codes: read as they lie, or staged as f32.

With keys `s[d] c[d] + z[d]` and values `s[t] c[t] + z[t]` the scales go to what codes are
multiplied by, once for a group of codes, and the minima become one number for a row:

    q . k = sum((q[d] s[d]) c[d]) + sum(q[d] z[d])
    sum(p[t] v[t]) = sum((p[t] s[t]) c[t]) + sum(p[t] z[t])

so that a code costs its extraction, a conversion and the product. A tile of many rows has its
blocks decoded to the scratch instead, where every row reads them.
"""

from math import gcd

from nybble.backends.cpu.kernels.attention_tile import Tile, TileShape
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, vec
from nybble.backends.cpu.kernels.kv import KEY_BLOCK
from nybble.backends.cpu.kernels.kv_pages import KvPages

_VECTOR = vec(KEY_BLOCK, f32)
_LINE = 4
"""Components of keys in a cache line of codes."""


class Codes:
    """Reads the codes of a cache; `head` (a key head) is that of the item at hand."""

    def __init__(self, b: KernelBuilder, pages: KvPages) -> None:
        self.b, self.pages = b, pages

    def scales(self, name: str, at: Value, minima: int) -> tuple[Value, Value]:
        """16 scales and minima of "k" or "v", f32; the minima are so far from the scales."""
        source = self.b.buffer(f"{name}_scales")
        scale, minimum = (source.vload(one, KEY_BLOCK) for one in (at, at + minima))
        return self.b.to_float(scale), self.b.to_float(minimum)

    def scale(self, name: str, at: Value, minima: int) -> tuple[Value, Value]:
        """One scale and minimum, each as a vector."""
        b, source = self.b, self.b.buffer(f"{name}_scales")
        scale, minimum = (b.to_float(source.load(one)) for one in (at, at + minima))
        return b.broadcast(scale, KEY_BLOCK), b.broadcast(minimum, KEY_BLOCK)

    def keys(self, head: Value, first_key: Value, component: Value, block: int) -> Value:
        """A component of the 16 keys of vector `block` from `first_key` on: codes as f32."""
        b, pages = self.b, self.pages
        vector = first_key // KEY_BLOCK + block
        at = pages.key_codes(head, vector // pages.planes, component)
        codes = b.buffer("k_codes").vload(at, KEY_BLOCK)
        return b.sitofp(pages.plane(b, codes, vector % pages.planes))

    def aligned_keys(self, head: Value, first_key: Value, component: Value, block: int) -> Value:
        """The same where `first_key` is that of a span, so that planes are known."""
        b, pages = self.b, self.pages
        codes = b.buffer("k_codes").vload(self.place(head, first_key, component, block), KEY_BLOCK)
        return b.sitofp(pages.plane(b, codes, block % pages.planes))

    def place(self, head: Value, first_key: Value, component: Value, block: int) -> Value:
        """Where the bytes of `aligned_keys` lie."""
        pages = self.pages
        span = first_key // pages.span + block // pages.planes
        return pages.key_codes(head, span, component)

    def values(self, head: Value, position: Value, offset: int) -> Value:
        """16 components of a value from `offset` on: codes as f32."""
        b, pages, vector = self.b, self.pages, offset // KEY_BLOCK
        at = pages.value_codes(head, position) + vector // pages.planes * KEY_BLOCK
        codes = b.buffer("v_codes").vload(at, KEY_BLOCK)
        return b.sitofp(pages.plane(b, codes, vector % pages.planes))


class CodedTile(Tile):
    """A tile of few rows: codes are read where they are used."""

    queries, weights = "folded_q", "folded_s"
    components = _LINE

    def __init__(
        self, b: KernelBuilder, shape: TileShape, softcap_log2: float | None, pages: KvPages
    ) -> None:
        super().__init__(b, shape, softcap_log2)
        self.pages, self.codes = pages, Codes(b, pages)
        self._is_aligned = shape.key_block % pages.span == 0
        self.key_vectors = gcd(shape.key_vectors, len(self.key_runs()[0]))
        self.value_vectors = gcd(shape.value_vectors, len(self.value_runs()[0]))

    def key_runs(self) -> list[range]:
        """Groups of keys, as far as a block has them."""
        size = min(self.pages.format.key_group, self.shape.key_block)
        starts = range(0, self.shape.key_block, size)
        return [range(start, start + size, KEY_BLOCK) for start in starts]

    def value_runs(self) -> list[range]:
        """Groups of components."""
        size = self.pages.value_group
        starts = range(0, self.pages.head_dim, size)
        return [range(start, start + size, KEY_BLOCK) for start in starts]

    def fold_query(self, first_key: Value) -> None:
        """Queries times scales, and their sums times minima."""
        pages, width = self.pages, self.pages.head_dim
        base = pages.key_scales(self.head, first_key // pages.format.key_group)
        with self.b.for_(0, self.shape.rows) as row:
            places = [row.iv * width + offset for offset in range(0, width, KEY_BLOCK)]
            scales = [
                self.codes.scales("k", base + offset, width)
                for offset in range(0, width, KEY_BLOCK)
            ]
            self._fold(row.iv, "q", places, scales)

    def fold_weights(self, first_key: Value, component: int) -> None:
        """Weights times scales, and their sums times minima."""
        pages, block = self.pages, self.shape.key_block
        base = pages.value_scales(self.head, component // pages.value_group, first_key)
        with self.b.for_(0, self.shape.rows) as row:
            places = [row.iv * block + offset for offset in range(0, block, KEY_BLOCK)]
            scales = [
                self.codes.scales("v", base + offset, pages.padded)
                for offset in range(0, block, KEY_BLOCK)
            ]
            self._fold(row.iv, "s", places, scales)

    def _fold(
        self, row: Value, part: str, places: list[Value], scales: list[tuple[Value, Value]]
    ) -> None:
        b, scratch = self.b, self.scratch
        total = b.const(0.0, _VECTOR)
        for place, (scale, minimum) in zip(places, scales, strict=True):
            value = scratch.vload(self.at(part, place), KEY_BLOCK)
            scratch.vstore(value * scale, self.at(f"folded_{part}", place))
            total = b.fma(value, minimum, total)
        scratch.store(b.reduce("add", total), self.at("offset", row))

    def _offsets(self, row: Value) -> list[Value]:
        rows = (self.at("offset", row + r) for r in range(self.shape.row_tile))
        return [self.b.broadcast(self.scratch.load(one), KEY_BLOCK) for one in rows]

    def score_start(self, row: Value) -> list[Value]:
        """The minima's share of the scores."""
        return [one for one in self._offsets(row) for _ in range(self.key_vectors)]

    def output_start(self, row: Value, offset: int, *, corrected: bool) -> list[Value]:
        """O so far, and the minima's share of these components."""
        sums = super().output_start(row, offset, corrected=corrected)
        added = self._offsets(row)
        return [one + added[i // self.value_vectors] for i, one in enumerate(sums)]

    def read_keys(self, first_key: Value, component: Value, block: int, turn: int) -> list[Value]:
        """Codes of keys, f32."""
        blocks = range(block, block + self.key_vectors)
        if not self._is_aligned:
            return [self.codes.keys(self.head, first_key, component, one) for one in blocks]
        if turn == 0:
            self._prefetch_codes(first_key, component, blocks)
        return [self.codes.aligned_keys(self.head, first_key, component, one) for one in blocks]

    def _prefetch_codes(self, first_key: Value, component: Value, blocks: range) -> None:
        """See `_prefetch`: of a line of components of each span."""
        pages = self.pages
        step = self.ahead * (self.shape.key_block // pages.planes * pages.head_dim)
        for one in blocks[:: pages.planes]:
            place = self.codes.place(self.head, first_key, component, one)
            self.b.buffer("k_codes").prefetch(place + step)

    def read_values(self, first_key: Value, key: Value, offset: int) -> list[Value]:
        """Codes of values, f32."""
        vectors = range(offset, offset + self.value_vectors * KEY_BLOCK, KEY_BLOCK)
        return [self.codes.values(self.head, first_key + key, one) for one in vectors]


class StagedCodes(Tile):
    """A tile of many rows: a block's keys and values are decoded to the scratch first."""

    def __init__(
        self, b: KernelBuilder, shape: TileShape, softcap_log2: float | None, pages: KvPages
    ) -> None:
        super().__init__(b, shape, softcap_log2)
        self.pages, self.codes = pages, Codes(b, pages)

    def stage(self, first_key: Value, keys: Value) -> None:
        """`scale * code + minimum` of all keys and values of a block, which are a whole page's."""
        self._stage_keys(first_key)
        with self.b.for_(0, self.shape.key_block) as key:
            self._stage_value(first_key, key.iv)

    def _stage_keys(self, first_key: Value) -> None:
        b, pages, width = self.b, self.pages, self.pages.head_dim
        group = min(pages.format.key_group, self.shape.key_block)
        for start in range(0, self.shape.key_block, group):
            base = pages.key_scales(self.head, (first_key + start) // pages.format.key_group)
            with b.for_(0, width) as component:
                scale, minimum = self.codes.scale("k", base + component.iv, width)
                for block in range(start // KEY_BLOCK, (start + group) // KEY_BLOCK):
                    codes = self.codes.keys(self.head, first_key, component.iv, block)
                    at = self.at("k", (component.iv + block * width) * KEY_BLOCK)
                    self.scratch.vstore(b.fma(codes, scale, minimum), at)

    def _stage_value(self, first_key: Value, key: Value) -> None:
        b, pages, position = self.b, self.pages, first_key + key
        for offset in range(0, pages.head_dim, KEY_BLOCK):
            base = pages.value_scales(self.head, offset // pages.value_group, position)
            scale, minimum = self.codes.scale("v", base, pages.padded)
            codes = self.codes.values(self.head, position, offset)
            at = self.at("v", key * pages.head_dim + offset)
            self.scratch.vstore(b.fma(codes, scale, minimum), at)
