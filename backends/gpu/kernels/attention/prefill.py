"""Prefill attention: many new tokens at once, each of which sees what came before it.

A block has 64 tokens of one query head, a warp 16 of them. Keys and values come through shared
memory, 64 at a time, the next ones while these are multiplied. Rows of 256 bytes lie there with
their 16-byte parts permuted by the low bits of the row, so that eight rows of `ldmatrix` are in
different banks. Logits stay in registers: as accumulators of one product they already are operands
of the other (FlashAttention-2, arXiv:2307.08691).

Blocks of keys that a list leaves out are never read. Tiles that the mask does not touch have no
comparisons.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import e, log2

from xdsl.dialects.builtin import ModuleOp, i32, i64

from nybble.backends.building.values import Value, f32
from nybble.backends.gpu.arch import Arch
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.codegen import compile_kernel
from nybble.backends.gpu.image import Access, KernelImage, Parameter
from nybble.backends.gpu.kernels.attention.coded import CodedCache
from nybble.backends.gpu.kernels.attention.spans import (
    KEYS_OF_TILE,
    PART,
    THREADS,
    Codes,
    Exact,
    KeySpan,
    Numbers,
    Room,
)
from nybble.backends.gpu.kernels.attention.spec import (
    ACCEPTED,
    HEAD_DIMS,
    AttentionError,
    is_read,
)
from nybble.backends.gpu.kernels.instructions import (
    butterfly,
    exp2,
    load_matrices,
    maximum,
    pack_halves,
    total_of_four,
)
from nybble.dialects.sparse_attn.kv import parse

ROWS = KEYS_OF_TILE
"""Tokens of a block, and keys of a tile."""
WARPS = THREADS // 32
LOWEST = -1e30
_STAGES = 2


@dataclass(frozen=True)
class PrefillSpec:
    """New tokens of each sequence, the last of the keys that are cached for it.

    tokens: new ones of every sequence. cache: of a cache with codes, the name of its format, and
    room: rows of its ring of tokens as they are; empty where keys are of the type `half`.
    block_lists: whether each 64 tokens of a head see only the
    blocks of 64 keys that a list names. half: "f16" or "bf16". Otherwise as DecodeSpec.
    """

    sequences: int
    kv_heads: int
    group: int
    head_dim: int
    context: int
    tokens: int
    scale: float
    half: str = "f16"
    block_lists: bool = False
    blocks: int = 2
    cache: str = ""
    room: int = 0

    def __post_init__(self) -> None:
        if self.head_dim not in HEAD_DIMS:
            raise AttentionError(f"head dimension {self.head_dim}", accepted="64 or 128")
        if self.half not in ("f16", "bf16"):
            raise AttentionError(f"a cache of '{self.half}'", accepted="f16 or bf16")
        if self.context % ROWS:
            accepted = f"a multiple of {ROWS}"
            raise AttentionError(f"a cache of {self.context} tokens", accepted=accepted)
        if not 1 <= self.tokens <= self.context:
            accepted = f"1 to {self.context}, which the cache has room for"
            raise AttentionError(f"{self.tokens} new tokens", accepted=accepted)
        if not self.scale > 0:
            raise AttentionError(f"a scale of {self.scale}", accepted="a positive one")
        if self.cache:
            self._check_cache()

    def _check_cache(self) -> None:
        """Raise AttentionError for codes that are not read."""
        if not (is_read(self.cache) and parse(self.cache).is_coded):
            raise AttentionError(f"a cache of '{self.cache}'", accepted=ACCEPTED)
        if self.half != "f16" or self.block_lists:
            what = "lists of blocks" if self.block_lists else f"queries of {self.half}"
            raise AttentionError(f"{what} over '{self.cache}'", accepted="f16, all blocks")
        least = parse(self.cache).room(self.tokens)
        if self.room < least:
            raise AttentionError(
                f"room for {self.room} tokens as they are in '{self.cache}'",
                accepted=f"{least} or more for {self.tokens} new tokens",
            )
        parse(self.cache).check(self.context, self.head_dim)

    @property
    def coded(self) -> CodedCache | None:
        """Where what a cache with codes has lies."""
        if not self.cache:
            return None
        heads = self.sequences * self.kv_heads
        return CodedCache(heads, self.head_dim, self.context, self.cache, self.room)

    @property
    def heads(self) -> int:
        """Query heads of a sequence."""
        return self.kv_heads * self.group

    @property
    def row_tiles(self) -> int:
        """Blocks of 64 tokens of a head."""
        return -(-self.tokens // ROWS)

    @property
    def tile_bytes(self) -> int:
        """Of 64 keys."""
        return ROWS * self.head_dim * 2

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The kernel's parameters.

        q, out: [sequences, tokens, heads, head_dim]; k, v: [sequences, kv_heads, context,
        head_dim], or `CodedCache.parameters`; lengths: keys of each sequence, the new
        tokens' too. block_list: [sequences, heads, row_tiles, context / 64], of which the first
        `block_counts` count.
        """
        cache = self.sequences * self.kv_heads * self.context * self.head_dim * 2
        rows = self.sequences * self.tokens * self.heads * self.head_dim * 2
        lists = self.sequences * self.heads * self.row_tiles * 4
        named = (
            Parameter("block_list", "i32", Access.READ, lists * (self.context // ROWS)),
            Parameter("block_counts", "i32", Access.READ, lists),
        )
        keys = [Parameter(one, self.half, Access.READ, cache) for one in "kv"]
        if self.coded is not None:
            keys = self.coded.parameters(Access.READ)
        return (
            Parameter("q", self.half, Access.READ, rows),
            *keys,
            Parameter("lengths", "i32", Access.READ, self.sequences * 4),
            *(named if self.block_lists else ()),
            Parameter("out", self.half, Access.WRITE, rows),
        )


@dataclass
class Rows:
    """What a warp carries for its rows g and g + 8: largest logit, sum of weights, result."""

    largest: list[Value]
    total: list[Value]
    result: list[Value]

    def flat(self) -> list[Value]:
        """All of it in a row."""
        return [*self.largest, *self.total, *self.result]

    @staticmethod
    def of(values: Sequence[Value]) -> "Rows":
        """The inverse of `flat`."""
        return Rows([*values[:2]], [*values[2:4]], [*values[4:]])


class Prefill:
    """Writes one prefill kernel."""

    def __init__(self, spec: PrefillSpec, called: str = "") -> None:
        self.spec = spec
        self.name = called or f"prefill_{spec.half}_d{spec.head_dim}"
        self.b = b = GpuBuilder(self.name, spec.parameters)
        names = (one.name for one in spec.parameters)
        self.at = dict(zip(names, b.parameters, strict=True))
        self.kind = f"m16n8k16.row.col.f32.{spec.half}.{spec.half}.f32"
        self.parts = spec.head_dim * 2 // PART
        self.room = Room(b, self.parts)
        thread = b.thread()
        self.warp, self.lane = thread // 32, thread % 32
        self.g, self.t = self.lane // 4, self.lane % 4
        block = b.block_id()
        self.row_tile = (spec.row_tiles - 1) - block // (spec.sequences * spec.heads)
        """Those with the most keys come first."""
        self.head_index = block % (spec.sequences * spec.heads)
        self.sequence = self.head_index // spec.heads
        self.head = self.head_index % spec.heads
        self.first_row = self.row_tile * ROWS + self.warp * 16
        self.factor = b.const(spec.scale * log2(e), f32)
        self.zero = b.const(0.0, f32)

    def module(self) -> ModuleOp:
        """The kernel; once."""
        b, spec = self.b, self.spec
        length = b.load(b.offset(self.at["lengths"], self.sequence * 4), i32)
        self.past = length - spec.tokens
        self.length = length
        self.cache_head = self.sequence * spec.kv_heads + self.head // spec.group
        self.query = self._query()
        lowest = b.const(LOWEST, f32)
        state = Rows([lowest] * 2, [self.zero] * 2, [self.zero] * (spec.head_dim // 8 * 4))
        state = self._of_numbers(state) if spec.coded is None else self._of_codes(spec.coded, state)
        self._write(state)
        return b.finish(32 * WARPS, spec.blocks)

    def _of_numbers(self, state: Rows) -> Rows:
        """The state after all keys of a cache of numbers."""
        b, spec = self.b, self.spec
        first = b.sext(self.cache_head, i64) * (spec.context * spec.head_dim * 2)
        bases = [b.offset(self.at[one], first) for one in "kv"]
        span = Numbers(self.room, self.past, bases, self._place)
        whole, every = self._tiles()
        self._start(span, every)
        if not spec.block_lists:
            state = self._loop(span, b.const(0, i32), whole, state, masked=False)
        state = self._loop(span, whole, every, state, masked=True)
        b.arrive(0)
        return state

    def _of_codes(self, cache: CodedCache, state: Rows) -> Rows:
        """The state after the codes that some row sees, and what some row sees as it is."""
        b, zero = self.b, self.b.const(0, i32)
        at = cache.of_head(b, self.at, self.cache_head)
        first = self.row_tile * ROWS
        end = b.min(self.past + first + ROWS, self.length)
        codes = Codes(self.room, self.past, cache, at)
        exact = Exact(self.room, self.past, cache, at, first, end)
        spans = (codes, codes.tiles(end - 1 - self.past)), (exact, exact.count)
        for span, count in spans:
            self._start(span, count)
            state = self._loop(span, zero, count, state, masked=True)
            b.arrive(0)
            b.barrier()  # the next span begins where this one may still be read
        return state

    def _start(self, span: KeySpan, count: Value) -> None:
        """Fill the first stage of a span of so many tiles."""
        self.last_tile = self.b.max(count - 1, 0)
        span.copy(self.b.const(0, i32), self.b.const(0, i32))
        self.b.commit()

    def build(self, arch: Arch) -> KernelImage:
        """The image; raises CodegenError."""
        spec = self.spec
        return KernelImage(
            self.name,
            arch.name,
            compile_kernel(self.module(), arch),
            spec.parameters,
            (spec.row_tiles * spec.sequences * spec.heads, 1, 1),
            (32 * WARPS, 1, 1),
            2 * _STAGES * spec.tile_bytes,
            facts={"attention": "prefill", **asdict(spec)},
        )

    # -- where things lie

    def _tiles(self) -> tuple[Value, Value]:
        """How many tiles every row sees whole, and how many there are for this block."""
        b, spec = self.b, self.spec
        if spec.block_lists:
            at = (self.head_index * spec.row_tiles + self.row_tile) * 4
            return b.const(0, i32), b.load(b.offset(self.at["block_counts"], at), i32)
        first = self.past + self.row_tile * ROWS
        last = b.min(first + ROWS, self.length)
        return (first + 1) // ROWS, (last + (ROWS - 1)) // ROWS

    def _place(self, tile: Value) -> Value:
        """Which tile of the cache comes `tile`-th."""
        if not self.spec.block_lists:
            return tile
        row = self.head_index * self.spec.row_tiles + self.row_tile
        at = row * (self.spec.context // ROWS * 4) + tile * 4
        return self.b.load(self.b.offset(self.at["block_list"], at), i32)

    def _row(self, row: Value) -> Value:
        """Bytes from the first query to that of a token of this head, in i64."""
        b, spec = self.b, self.spec
        token = self.sequence * spec.tokens + row
        return b.sext(token * spec.heads + self.head, i64) * (spec.head_dim * 2)

    def _query(self) -> list[list[Value]]:
        """Registers of this warp's 16 rows for each 16 elements; rows past the tokens are 0."""
        b, spec = self.b, self.spec
        halves: list[list[Value]] = []
        for more in (0, 8):
            row = self.first_row + self.g + more
            inside = row < spec.tokens
            at = b.offset(self.at["q"], self._row(b.select(inside, row, 0)))
            start = b.offset(at, self.t * 4)
            words = [b.load_words(start, 16 * i, 1, "nc")[0] for i in range(self.parts)]
            halves.append([b.select(inside, word, 0) for word in words])
        pairs = range(0, self.parts, 2)
        return [[halves[0][i], halves[1][i], halves[0][i + 1], halves[1][i + 1]] for i in pairs]

    # -- shared memory

    def _matrices(
        self, base: Value, row: Value, part: Value | int, *, transposed: bool
    ) -> list[Value]:
        """Four 8 x 8 matrices; row, part: where this lane's row of eight elements begins."""
        b = self.b
        at = row * (self.parts * PART) + ((row % 8) ^ part) * PART
        return load_matrices(b, b.offset(base, at), transposed=transposed)

    # -- a tile

    def _loop(self, span: KeySpan, first: Value, last: Value, start: Rows, *, masked: bool) -> Rows:
        b = self.b
        with b.for_(first, last, 1, start.flat()) as loop:
            b.arrive(0)
            b.barrier()
            stage = loop.iv % _STAGES
            after = b.min(loop.iv + 1, self.last_tile)
            span.copy(after, (loop.iv + 1) % _STAGES)
            b.commit()
            keys = b.offset(b.shared(), stage * (2 * self.spec.tile_bytes))
            logits = self._logits(keys)
            if masked:
                logits = self._visible(logits, span, loop.iv)
            state, weights = self._weigh(Rows.of(loop.args), logits)
            self._add_values(state, weights, b.offset(keys, self.spec.tile_bytes))
            loop.yield_(*state.flat())
        return Rows.of(loop.results)

    def _logits(self, keys: Value) -> list[list[Value]]:
        """The accumulators of 16 rows with each 8 of 64 keys."""
        b = self.b
        found = [[self.zero] * 4 for _ in range(ROWS // 8)]
        row = self.lane % 8 + self.lane // 16 * 8
        side = self.lane // 8 % 2
        for i, a in enumerate(self.query):
            for pair in range(ROWS // 16):
                part = side + 2 * i
                words = self._matrices(keys, row + pair * 16, part, transposed=False)
                for j in range(2):
                    at = 2 * pair + j
                    found[at] = b.mma(self.kind, a, words[2 * j : 2 * j + 2], found[at])
        return found

    def _visible(self, logits: list[list[Value]], span: KeySpan, tile: Value) -> list[list[Value]]:
        """The logits, without those of keys that their row does not see."""
        b = self.b
        none, key = b.const(float("-inf"), f32), self.t * 2
        ends = [span.seen(tile, self.first_row + self.g + more) for more in (0, 8)]

        def inside(half: int, more: int) -> Value:
            last, first = ends[half]
            seen = last - key >= more
            return seen if first is None else seen & (first - key <= more)

        return [
            [b.select(inside(j // 2, 8 * i + j % 2), x, none) for j, x in enumerate(one)]
            for i, one in enumerate(logits)
        ]

    def _weigh(self, state: Rows, logits: list[list[Value]]) -> tuple[Rows, list[list[Value]]]:
        """The state scaled to the new largest logits, and the weights of these."""
        b, largest, factors = self.b, list[Value](), list[Value]()
        for half, before in enumerate(state.largest):
            most = logits[0][2 * half]
            for one in logits:
                for x in one[2 * half : 2 * half + 2]:
                    most = maximum(b, most, x)
            for distance in (1, 2):
                most = maximum(b, most, butterfly(b, most, distance))
            largest.append(maximum(b, before, most * self.factor))
            factors.append(exp2(b, before - largest[half]))
        weights = [
            [exp2(b, b.fma(x, self.factor, -largest[j // 2])) for j, x in enumerate(one)]
            for one in logits
        ]
        total = [before * factor for before, factor in zip(state.total, factors, strict=True)]
        for one in weights:
            for j, x in enumerate(one):
                total[j // 2] = total[j // 2] + x
        result = [x * factors[i % 4 // 2] for i, x in enumerate(state.result)]
        return Rows(largest, total, result), weights

    def _add_values(self, state: Rows, weights: list[list[Value]], values: Value) -> None:
        b, half = self.b, self.spec.half
        row = self.lane % 16
        side = self.lane // 16
        for i in range(ROWS // 16):
            left, right = weights[2 * i], weights[2 * i + 1]
            pairs = (left[:2], left[2:], right[:2], right[2:])
            a = [pack_halves(b, half, *pair) for pair in pairs]
            for part in range(0, self.parts, 2):
                words = self._matrices(values, row + 16 * i, side + part, transposed=True)
                for j in range(2):
                    at = slice(4 * (part + j), 4 * (part + j) + 4)
                    state.result[at] = b.mma(
                        self.kind, a, words[2 * j : 2 * j + 2], state.result[at]
                    )

    def _write(self, state: Rows) -> None:
        b, spec = self.b, self.spec
        one = b.const(1.0, f32)
        for half in (0, 1):
            total = total_of_four(b, state.total[half])
            inverse = b.select(total > 0.0, one / total, 0.0)
            row = self.first_row + self.g + 8 * half
            with b.if_(row < spec.tokens):
                start = b.offset(b.offset(self.at["out"], self._row(row)), self.t * 4)
                for i in range(self.parts):
                    pair = state.result[4 * i + 2 * half : 4 * i + 2 * half + 2]
                    word = pack_halves(b, spec.half, *[x * inverse for x in pair])
                    b.store(word, b.offset(start, 16 * i))


def prefill_image(spec: PrefillSpec, arch: Arch, called: str = "") -> KernelImage:
    """The kernel of a prefill attention for `arch`, under a name if not its own; CodegenError."""
    return Prefill(spec, called).build(arch)


def prefill_module(spec: PrefillSpec, called: str = "") -> ModuleOp:
    """The module of that kernel."""
    return Prefill(spec, called).module()
