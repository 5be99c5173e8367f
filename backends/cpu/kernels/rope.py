"""Rotary embedding of queries and keys and the append of keys and values to the KV cache, fused.

Of a cache with codes the rows go to its ring. One row also turns the page into codes that it leaves
behind its boundary, whose tokens are all of earlier calls; after many rows KvQuantize does that.

Half-split (NeoX) rotation with precomputed tables; optionally RMSNorm of every query and key head
before it (qwen3, gemma3), and a Hadamard transform of each after it. Work is shared out by (row,
key head): the group's query heads, the key and the value of one row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import Buffer, BufferSpec, KernelBuilder, Value, f32, vec
from nybble.backends.cpu.kernels.hadamard import butterflies, within
from nybble.backends.cpu.kernels.kv import KEY_BLOCK, KvCache
from nybble.backends.cpu.kernels.kv_append import PageCodes
from nybble.backends.cpu.kernels.kv_pages import Cache, KvPages
from nybble.backends.cpu.kernels.loops import padded_rows
from nybble.backends.cpu.kernels.norm import apply_weight, inverse_rms


@dataclass(frozen=True)
class HeadNorm:
    """RMSNorm of each head before the rotation: `x / rms(x) * w`, or `* (1 + w)` with `offset`."""

    eps: float
    offset: bool = False


@dataclass(frozen=True)
class Rope:
    """Matrices "a" and "b" f32 [n, heads * d] of two numbers of heads are rotated in place.

    cos, sin: f32 [context, d / 2]. With `norm` there are also the weights aw and bw f32 [d].
    """

    heads: tuple[int, ...]
    head_dim: int
    context: int
    rows: int
    norm: HeadNorm | None = None

    @property
    def buffers(self) -> list[BufferSpec]:
        """a, b, cos, sin (, aw, bw)."""
        rows, table = padded_rows(self.rows), self.context * self.head_dim // 2
        names = ("a", "b")
        matrices = [
            BufferSpec(name, rows * heads * self.head_dim, f32)
            for name, heads in zip(names, self.heads, strict=True)
        ]
        weights = names if self.norm else ()
        tables = [BufferSpec("cos", table, f32), BufferSpec("sin", table, f32)]
        return [*matrices, *tables, *(BufferSpec(f"{one}w", self.head_dim, f32) for one in weights)]

    def build(self, name: str) -> FuncOp:
        """The kernel; shared out by heads of rows."""
        b = KernelBuilder(name, self.buffers)
        turn = Rotation(b, self.head_dim, self.norm)
        n = b.const(1) if self.rows == 1 else b.n
        for matrix, heads in zip(("a", "b"), self.heads, strict=True):
            values = b.buffer(matrix)
            with b.for_(*b.partition(n * heads)) as head:
                base = head.iv * self.head_dim
                position = b.pos + head.iv // heads
                for offset, value in turn.turned(values, base, position, f"{matrix}w"):
                    values.vstore(value, base + offset)
        return b.finish()


@dataclass(frozen=True)
class Rotation:
    """Emits the rotation of heads, normalised first if there is a norm, into a kernel.

    hadamard: whether each head, of a power of two, is transformed after it.
    """

    b: KernelBuilder
    head_dim: int
    norm: HeadNorm | None
    hadamard: bool = False

    @property
    def lanes(self) -> int:
        """Vector width: half a head is a whole number of vectors."""
        return 16 if self.head_dim % 32 == 0 else 8

    def turned(
        self, source: Buffer, base: Value, position: Value, weight: str
    ) -> list[tuple[int, Value]]:
        """(offset in the head, rotated vector) of every vector of a head at source[base:]."""
        b, half, lanes = self.b, self.head_dim // 2, self.lanes
        table = position * half
        read = self._reader(source, base, weight)
        out: list[tuple[int, Value]] = []
        for offset in range(0, half, lanes):
            first, second = read(offset), read(half + offset)
            cos = b.buffer("cos").vload(table + offset, lanes)
            sin = b.buffer("sin").vload(table + offset, lanes)
            out.append((offset, first * cos - second * sin))
            out.append((half + offset, b.fma(second, cos, first * sin)))
        return self._transformed(sorted(out, key=itemgetter(0))) if self.hadamard else out

    def _transformed(self, head: list[tuple[int, Value]]) -> list[tuple[int, Value]]:
        """The normalised Hadamard transform of the vectors of a head, in order."""
        b, lanes = self.b, self.lanes
        factor = b.const(self.head_dim**-0.5, vec(lanes, f32))
        values = butterflies([within(b, value, self.head_dim, lanes) for _, value in head])
        return [(at, value * factor) for (at, _), value in zip(head, values, strict=True)]

    def _reader(self, source: Buffer, base: Value, weight: str) -> Callable[[int], Value]:
        """A function from an offset in the head to its vector, normalised if there is a norm."""
        b, norm, lanes = self.b, self.norm, self.lanes
        if norm is None:
            return lambda offset: source.vload(base + offset, lanes)
        inverse = inverse_rms(b, source, (base, self.head_dim), norm.eps, lanes)

        def normalised(offset: int) -> Value:
            value = source.vload(base + offset, lanes) * inverse
            return apply_weight(value, b.buffer(weight).vload(offset, lanes), norm.offset)

        return normalised


@dataclass(frozen=True)
class RopeAppend:
    """q f32 [n, q_heads * d] is rotated in place; rotated k and v go to the caches at pos ..

    k, v: f32 [n, kv_heads * d], called new_k and new_v beside the cache's own; cos, sin: f32
    [context, d / 2]. With `norm` there are also the weights qw and kw f32 [d]. pos + n must not
    exceed the context. keeps_keys: whether new_k is rotated in place, too. hadamard: whether heads
    of q and k are transformed after their rotation.

    Raises ValueError for heads that cannot be.
    """

    cache: Cache
    q_heads: int
    rows: int
    norm: HeadNorm | None = None
    keeps_keys: bool = False
    hadamard: bool = False

    def __post_init__(self) -> None:
        size = self.cache.head_dim
        if self.hadamard and size & (size - 1):
            raise ValueError(f"a Hadamard transform of heads of {size}, no power of two")
        if self.q_heads % self.cache.kv_heads:
            raise ValueError(
                f"{self.q_heads} query heads do not divide over {self.cache.kv_heads} KV heads"
            )

    @property
    def lanes(self) -> int:
        """Vector width."""
        return 16 if self.cache.head_dim % 32 == 0 else 8

    def _rotation(self, b: KernelBuilder) -> Rotation:
        return Rotation(b, self.cache.head_dim, self.norm, self.hadamard)

    @property
    def buffers(self) -> list[BufferSpec]:
        """q, new_k, new_v, cos, sin, the cache's (, qw, kw)."""
        cache, rows = self.cache, padded_rows(self.rows)
        table = cache.context * cache.head_dim // 2
        weights = ("qw", "kw") if self.norm else ()
        return [
            BufferSpec("q", rows * self.q_heads * cache.head_dim, f32),
            BufferSpec("new_k", rows * cache.kv_heads * cache.head_dim, f32),
            BufferSpec("new_v", rows * cache.kv_heads * cache.head_dim, f32),
            BufferSpec("cos", table, f32),
            BufferSpec("sin", table, f32),
            *cache.buffers,
            *(BufferSpec(name, cache.head_dim, f32) for name in weights),
        ]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        heads, group = self.cache.kv_heads, self.q_heads // self.cache.kv_heads
        lo, hi = b.partition(heads if self.rows == 1 else b.n * heads)
        with b.for_(lo, hi) as unit:
            row, head = unit.iv // heads, unit.iv % heads
            position = b.pos + row
            with b.for_(0, group) as member:
                self._query(b, unit.iv * group + member.iv, position)
            self._key(b, unit.iv, head, position)
            self._value(b, unit.iv, head, position)
        if isinstance(self.cache, KvPages) and self.makes_codes:
            self._quantize(b, self.cache, (lo, hi))
        return b.finish()

    @property
    def makes_codes(self) -> bool:
        """Whether pages become codes here, and not in KvQuantize."""
        cache = self.cache
        return self.rows == 1 and isinstance(cache, KvPages) and not cache.format.is_corrected

    @property
    def held(self) -> KvCache:
        """Where rows go."""
        return self.cache.exact if isinstance(self.cache, KvPages) else self.cache

    @staticmethod
    def _quantize(b: KernelBuilder, cache: KvPages, heads: tuple[Value, Value]) -> None:
        codes = PageCodes(b, cache)
        first, last = codes.left_behind(b.const(1))
        with b.for_(first, last) as page, b.for_(*heads) as head:
            codes.quantize(head.iv, page.iv)

    def _query(self, b: KernelBuilder, head: Value, position: Value) -> None:
        q, base = b.buffer("q"), head * self.cache.head_dim
        for offset, value in self._rotation(b).turned(q, base, position, "qw"):
            q.vstore(value, base + offset)

    def _key(self, b: KernelBuilder, source: Value, head: Value, position: Value) -> None:
        cache, keys = self.held, b.buffer("k")
        slot = cache.slot(b, position)
        at = cache.key_vector(head, slot // KEY_BLOCK, 0) + slot % KEY_BLOCK
        new, base = b.buffer("new_k"), source * cache.head_dim
        turned = self._rotation(b).turned(new, base, position, "kw")
        for offset, value in turned:
            stored = b.to_float(value, cache.element)
            if self.keeps_keys:
                new.vstore(value, base + offset)
            for lane in range(self.lanes):
                keys.store(b.extract(stored, lane), at + (offset + lane) * KEY_BLOCK)

    def _value(self, b: KernelBuilder, source: Value, head: Value, position: Value) -> None:
        cache = self.held
        at = cache.value_row(head, cache.slot(b, position))
        for offset in range(0, cache.head_dim, self.lanes):
            value = b.buffer("new_v").vload(source * cache.head_dim + offset, self.lanes)
            b.buffer("v").vstore(b.to_float(value, cache.element), at + offset)
