"""Decode attention: each block takes a share of the keys of one cache head, the last one merges.

A warp multiplies the query heads that share a cache head (rows of `mma.m16n8k16`) with 16 keys,
read from memory straight into registers, keeps a softmax of what it has seen, and multiplies the
probabilities, whose registers are already those of an operand, with the values:

    S [queries, keys] = Q [queries, d] @ K^T    P = exp2(S - m)    O^T [d, queries] += V^T @ P^T

No shared memory and no barrier until the end, so that every warp streams at its own pace; the next
keys are asked for as soon as the registers of the last ones are free. Flash decoding, grouped
queries: arXiv:2307.08691 and its authors' notes on long contexts.

Keys are one span of steps, or two: codes, and then tokens that are kept as they are (`exact`).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import e, log2
from typing import TypeAlias

from xdsl.dialects.builtin import ModuleOp, i1, i32, i64

from nybble.backends.building.values import Value, f32
from nybble.backends.gpu.arch import Arch
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.codegen import compile_kernel
from nybble.backends.gpu.image import KernelImage
from nybble.backends.gpu.kernels.attention.coded import TILE
from nybble.backends.gpu.kernels.attention.exact import ExactRows
from nybble.backends.gpu.kernels.attention.fragments import RowPart, across, gather
from nybble.backends.gpu.kernels.attention.merge import Merge, shared_bytes
from nybble.backends.gpu.kernels.attention.scales import Scales, stage_bytes
from nybble.backends.gpu.kernels.attention.spec import ROWS, DecodeSpec
from nybble.backends.gpu.kernels.instructions import (
    any_lane,
    butterfly,
    exp2,
    from_lane,
    fused_halves,
    maximum,
    pack_halves,
    times_halves,
    total_of_four,
)

LOWEST = -1e30
"""The largest logit so far where there was none: finite, so that differences are numbers."""
MOST_ABOVE, MOST_BELOW = 15.0, 13.0
"""How far, in powers of 2, the largest logit may be from the anchor: weights must be normal f16."""
_REGISTERS_OF_O = 4
_VALUE_ROWS = (0, 1, 8, 9)
"""Which keys of 16 a lane has the values of, beside its own 2 t."""


@dataclass
class State:
    """What a warp carries, for each tile of queries.

    largest: logit so far, times scale and log2(e). total: sum of the weights. minima: sum of the
    weights times the minima of the values. result: [d, queries] in the accumulators of products.
    """

    largest: list[Value]
    total: list[Value]
    minima: list[Value]
    result: list[list[Value]]

    def flat(self) -> list[Value]:
        """All of it in a row, to be carried by a loop."""
        return [
            *self.largest,
            *self.total,
            *self.minima,
            *(one for tile in self.result for one in tile),
        ]

    def like(self, values: Sequence[Value]) -> "State":
        """Another state from the row that `flat` makes."""
        n, rest = len(self.largest), iter(values)
        largest, total, minima = ([next(rest) for _ in range(n)] for _ in range(3))
        return State(largest, total, minima, [[next(rest) for _ in tile] for tile in self.result])


Span: TypeAlias = tuple[Value, Value]
"""The first step of a warp, and the end of its block's."""
Weigh: TypeAlias = Callable[[State, list[list[Value]]], tuple[State, list[list[Value]]]]


class Decode:
    """Writes one decode kernel."""

    def __init__(self, spec: DecodeSpec, called: str = "") -> None:
        self.spec = spec
        self.name = called or name(spec)
        self.b = b = GpuBuilder(self.name, spec.parameters)
        self.at = dict(zip((one.name for one in spec.parameters), b.parameters, strict=True))
        self.key_part = RowPart(spec.head_dim, spec.bits, 4)
        self.value_part = RowPart(spec.head_dim, spec.bits, 8)
        self.row = spec.head_dim * spec.bits // 8
        thread = b.thread()
        self.warp, lane = thread // 32, thread % 32
        self.g, self.t = lane // 4, lane % 4
        self.merge = Merge(b, spec, self.at, self.value_part.run)
        self.head = self.merge.head
        self.split = b.block_id() % spec.splits
        self.kind = f"m16n8k16.row.col.f32.{spec.half}.{spec.half}.f32"
        self.zero = b.const(0.0, f32)

    def module(self) -> ModuleOp:
        """The kernel; once."""
        b, spec, each = self.b, self.spec, warp_bytes(self.spec)
        spans = [(first + self.warp, last) for first, last in self._bounds()]
        self.factor = b.const(spec.scale * log2(e), f32)
        self.keys, self.values = (self._head_rows(one, self.row) for one in ("k", "v"))
        if spec.quantized:
            room = b.offset(b.shared(), self.warp * each)
            self.scales = Scales(b, spec, self.at, self.head, room)
        self.query = self._query()
        state = self._attend(spans)
        if each:
            b.barrier()  # what is merged goes where steps were
        self._hand_in(state)
        self.merge.finish()
        return b.finish(spec.threads, spec.blocks)

    def build(self, arch: Arch) -> KernelImage:
        """The image; raises CodegenError."""
        spec = self.spec
        return KernelImage(
            self.name,
            arch.name,
            compile_kernel(self.module(), arch),
            spec.parameters,
            (spec.jobs * spec.splits, 1, 1),
            (spec.threads, 1, 1),
            max(shared_bytes(spec), spec.warps * warp_bytes(spec)),
            facts={"attention": "decode", **asdict(spec)},
        )

    def _start(self) -> State:
        """That of a warp that has seen nothing."""
        tiles, zero = range(self.spec.query_tiles), self.zero
        registers = self.spec.head_dim // TILE * _REGISTERS_OF_O
        lowest = self.b.const(LOWEST, f32)
        nothing = [zero for _ in tiles]
        return State([lowest for _ in tiles], nothing, nothing, [[zero] * registers for _ in tiles])

    def _attend(self, spans: Sequence[Span]) -> State:
        """What this warp has seen after its steps, every `warps`-th of each span."""
        start = self._start()
        if self.spec.softmax == "online":
            return self._walk(spans, start, self._follow)
        guessed = self._walk(spans, start, self._trust)
        wrong, b = self._is_wrong(guessed), self.b
        pairs = zip(start.flat(), guessed.flat(), strict=True)
        kept = start.like([b.select(wrong, new, old) for new, old in pairs])
        again = [(b.select(wrong, first, last), last) for first, last in spans]
        return self._walk(again, kept, self._follow)

    def _walk(self, spans: Sequence[Span], start: State, weigh: Weigh) -> State:
        for loop, span in zip((self._loop, self._loop_exact), spans, strict=False):
            start = loop(*span, start, weigh)
        return start

    def _loop_exact(self, first: Value, last: Value, start: State, weigh: Weigh) -> State:
        """Over tokens that are kept as they are."""
        b, exact = self.b, self.exact
        with b.for_(first, last, self.spec.warps, start.flat()) as loop:
            state = start.like(loop.args)
            row, token = exact.place(loop.iv)
            keys = exact.rows(
                "k", row + self.g, self._key_element(), (0, 8), self.key_part.elements()
            )
            found = [self._dot(self.query, pairs, [self.zero] * 4) for pairs in keys]
            state, weights = weigh(state, self._seen(found, token))
            values = exact.rows(
                "v", row + self.t * 2, self._value_element(), _VALUE_ROWS,
                self.value_part.elements(),
            )  # fmt: skip
            self._multiply(state, values, self._packed(weights))
            loop.yield_(*state.flat())
        return start.like(loop.results)

    def _loop(self, first: Value, last: Value, start: State, weigh: Weigh) -> State:
        b, spec = self.b, self.spec
        begin = self._place(b.min(first, self.last_step))
        keys, values = self.load_keys(begin), self.load_values(begin)
        carried, even = start.flat(), b.const(0, i32)
        if spec.quantized:
            b.sync_warp()  # an earlier loop has read where these go
            self._copy_scales(begin, even)
        with b.for_(first, last, spec.warps, [*carried, begin, even, *keys, *values]) as loop:
            state = start.like(loop.args[: len(carried)])
            step, self.stage, *words = loop.args[len(carried) :]
            if spec.quantized:
                b.arrive(0)
                b.sync_warp()
            found = self.logits(words[: len(keys)])
            after = self._place(b.min(loop.iv + spec.warps, self.last_step))
            next_keys, next_stage = self.load_keys(after), 1 - self.stage
            if spec.quantized:
                self._copy_scales(after, next_stage)
            state, weights = weigh(state, self._seen(found, step * spec.step))
            self._add_values(state, weights, words[len(keys) :])
            loop.yield_(*state.flat(), after, next_stage, *next_keys, *self.load_values(after))
        if spec.quantized:
            b.arrive(0)  # what nobody waited for must not land in the next user's memory
        return start.like(loop.results[: len(carried)])

    def _copy_scales(self, step: Value, stage: Value) -> None:
        self.scales.copy(step, stage)
        self.b.commit()

    def _hand_in(self, state: State) -> None:
        """This warp's partial result into shared memory."""
        b, spec = self.b, self.spec
        elements = [one for pair in self.value_part.elements() for one in pair]
        half = len(elements) // 2
        for tile in range(spec.query_tiles):
            total = total_of_four(b, state.total[tile])
            minima = total_of_four(b, state.minima[tile])
            self.merge.put_statistics(self.warp, self.g + tile * ROWS, state.largest[tile], total)
            added = self.of_columns(minima) if spec.value_groups == 1 else [self.zero] * 2
            for token in (0, 1):
                shown: dict[int, Value] = {}
                for i, value in list(enumerate(state.result[tile]))[token::2]:
                    element = elements[i // _REGISTERS_OF_O + half * (i % _REGISTERS_OF_O // 2)]
                    shown[element] = value + added[token] if spec.value_groups == 1 else value
                query = self.t * 2 + (token + tile * ROWS)
                self.merge.put(self.warp, query, self.g, shown)

    # -- where things lie

    def _head_rows(self, name: str, row_bytes: int) -> Value:
        """Pointer to the first row of this head in a buffer of rows of so many bytes."""
        b = self.b
        return b.offset(self.at[name], b.sext(self.head, i64) * (self.spec.context * row_bytes))

    def _query(self) -> list[list[Value]]:
        """For each tile of queries the pairs of elements; those of queries that are not are 0."""
        b, spec = self.b, self.spec
        tiles: list[list[Value]] = []
        for tile in range(spec.query_tiles):
            mine = self.g + tile * ROWS
            inside = self.merge.exists(mine)
            index = self.merge.row(b.select(inside, mine, 0))
            row = b.offset(self.at["q"], index * (spec.head_dim * 2) + self._key_element() * 2)
            pairs = gather(row, self.key_part.elements(), self._four)
            tiles.append([b.select(inside, pair, 0) for pair in pairs])
        return tiles

    def _four(self, row: Value, at: int) -> list[Value]:
        return self.b.load_words(row, at, 4)

    def _key_element(self) -> Value:
        """The first element of a key that this lane reads."""
        return self.t * self.key_part.run

    def _value_element(self) -> Value:
        """The first element of a value that this lane reads."""
        return self.g * self.value_part.run

    def _bounds(self) -> list[Span]:
        """The steps [first, last) of this block, of codes or numbers, and of tokens that are kept
        as they are; sets how many keys and steps its head has."""
        b, spec = self.b, self.spec
        sequence = self.head // spec.kv_heads
        self.length = b.load(b.offset(self.at["lengths"], sequence * 4), i32)
        if spec.room:
            self.exact = ExactRows(b, spec, self.at, self.head, self.length)
            steps = (self.exact.first - spec.format.pinned) // spec.step
        elif spec.block:
            count = b.load(b.offset(self.at["block_counts"], self.head * 4), i32)
            steps = count * (spec.block // spec.step)
        else:
            steps = (self.length + (spec.step - 1)) // spec.step
        self.last_step = b.max(steps - 1, 0)
        found = [self._share(steps)]
        return [*found, self._share(self.exact.tiles)] if spec.room else found

    def _share(self, steps: Value) -> Span:
        """This block's steps of so many."""
        b, splits = self.b, self.spec.splits
        share = (steps + (splits - 1)) // splits
        first = self.split * share
        return b.min(first, steps), b.min(first + share, steps)

    def _place(self, step: Value) -> Value:
        """Which step of the cache comes `step`-th: that of a block of the list, or itself, counted
        from the first one behind pinned tokens."""
        b, spec = self.b, self.spec
        if not spec.block:
            return step + spec.format.pinned // spec.step
        each = spec.block // spec.step
        row = self.head * (spec.context // spec.block * 4)
        at = b.offset(self.at["block_list"], row + step // each * 4)
        return b.load(at, i32) * each + step % each

    # -- a step

    def _key_start(self, step: Value) -> Value:
        """This lane's first bytes of the keys of a step."""
        lane = self.g * self.row + self.t * self.key_part.chunk
        return self.b.offset(self.keys, step * (self.spec.step * self.row) + lane)

    def _value_start(self, step: Value) -> Value:
        """This lane's first bytes of the values of a step."""
        lane = self.t * (2 * self.row) + self.g * self.value_part.chunk
        return self.b.offset(self.values, step * (self.spec.step * self.row) + lane)

    def load_keys(self, step: Value) -> list[Value]:
        """The words of a step's keys, tile by tile, 8 keys after 8."""
        start, part = self._key_start(step), self.key_part
        rows = key_rows(self.spec)
        return [word for key in rows for word in part.load(self.b, start, key * self.row)]

    def load_values(self, step: Value) -> list[Value]:
        """The words of a step's values, tile by tile, four keys of each."""
        start, part = self._value_start(step), self.value_part
        rows = value_rows(self.spec)
        return [word for key in rows for word in part.load(self.b, start, key * self.row)]

    def logits(self, words: Sequence[Value]) -> list[list[Value]]:
        """Products of the queries with the keys: four accumulators for each 8 keys."""
        query, start = self._scaled_query()
        part, b = self.key_part, self.b
        found: list[list[Value]] = []
        for first in range(0, len(words), part.words):
            pairs = part.expand(b, words[first : first + part.words])
            found.append(self._dot(query, pairs, start))
        return found

    def _dot(
        self, query: list[list[Value]], pairs: Sequence[Value], start: Sequence[Value]
    ) -> list[Value]:
        """The query with 8 keys, in two chains that do not wait for each other."""
        b, zero = self.b, self.b.const(0, i32)
        chains = [[*start], [self.zero] * 4]
        lower = query[1] if len(query) > 1 else [zero] * len(pairs)
        for at in range(0, len(pairs), 2):
            a = [query[0][at], lower[at], query[0][at + 1], lower[at + 1]]
            chain = at // 2 % 2
            chains[chain] = b.mma(self.kind, a, pairs[at : at + 2], chains[chain])
        return [x + y for x, y in zip(*chains, strict=True)]

    def _scaled_query(self) -> tuple[list[list[Value]], Sequence[Value]]:
        """The query by the scales of the step's keys; its product with their minima."""
        if not self.spec.quantized:
            return self.query, [self.zero] * 4
        b, elements = self.b, self.key_part.elements()
        scales, minima = self.scales.of_keys(self.stage, self.t, elements)
        scaled = [
            [times_halves(b, q, s) for q, s in zip(tile, scales, strict=True)]
            for tile in self.query
        ]
        return scaled, self._dot(self.query, minima, [self.zero] * 4)

    def _seen(self, found: list[list[Value]], token: Value) -> list[list[Value]]:
        """This lane's logits of each tile of queries, none past the end; token: the first one."""
        left = self.length - token - self.t * 2
        return [self._visible(found, left, tile) for tile in range(self.spec.query_tiles)]

    def _visible(self, found: list[list[Value]], left: Value, tile: int) -> list[Value]:
        """This lane's logits of a tile of queries, two for each 8 keys, none past the end."""
        b = self.b
        none = b.const(float("-inf"), f32)
        return [
            b.select(left > 8 * i + j, one[2 * tile + j], none)
            for i, one in enumerate(found)
            for j in range(2)
        ]

    def _follow(self, state: State, seen: list[list[Value]]) -> tuple[State, list[list[Value]]]:
        """Weights by the largest logit so far; what was summed before is scaled to it."""
        b, largest, factors = self.b, list[Value](), list[Value]()
        for before, logits in zip(state.largest, seen, strict=True):
            most = self._most(logits)
            for distance in (1, 2):
                most = maximum(b, most, butterfly(b, most, distance))
            now = maximum(b, before, most * self.factor)
            largest.append(now)
            factors.append(exp2(b, before - now))
        weights = [self._weights(*pair) for pair in zip(seen, largest, strict=True)]
        old = zip(state.total, factors, weights, strict=True)
        total = [self._sum(before * factor, one) for before, factor, one in old]
        minima = [one * factor for one, factor in zip(state.minima, factors, strict=True)]
        result = [self._rescaled(*pair) for pair in zip(state.result, factors, strict=True)]
        return State(largest, total, minima, result), weights

    def _trust(self, state: State, seen: list[list[Value]]) -> tuple[State, list[list[Value]]]:
        """Weights by the anchor; `largest` is of what this lane alone has seen."""
        b = self.b
        pairs = zip(state.largest, seen, strict=True)
        largest = [maximum(b, one, self._most(logits) * self.factor) for one, logits in pairs]
        anchor = b.const(self.spec.anchor * log2(e), f32)
        weights = [self._weights(logits, anchor) for logits in seen]
        total = [self._sum(*pair) for pair in zip(state.total, weights, strict=True)]
        result = [[*tile] for tile in state.result]
        return State(largest, total, [*state.minima], result), weights

    def _is_wrong(self, state: State) -> Value:
        """Whether the anchor was too far from the largest logit of a query, for a weight of f16.

        Puts the anchor in the place of the largest logits.
        """
        b, anchor = self.b, self.spec.anchor * log2(e)
        wrong = b.const(0, i1)
        for tile, most in enumerate(state.largest):
            for distance in (1, 2):
                most = maximum(b, most, butterfly(b, most, distance))
            far = (most > anchor + MOST_ABOVE) | (most < anchor - MOST_BELOW)
            wrong = wrong | (far & self.merge.exists(self.g + tile * ROWS))
            state.largest[tile] = b.const(anchor, f32)
        return any_lane(b, wrong)

    def _most(self, logits: Sequence[Value]) -> Value:
        most = logits[0]
        for logit in logits[1:]:
            most = maximum(self.b, most, logit)
        return most

    def _weights(self, logits: Sequence[Value], largest: Value) -> list[Value]:
        return [exp2(self.b, self.b.fma(one, self.factor, -largest)) for one in logits]

    @staticmethod
    def _sum(start: Value, terms: Sequence[Value]) -> Value:
        for term in terms:
            start = start + term
        return start

    def _rescaled(self, result: list[Value], factor: Value) -> list[Value]:
        """A result times the factors of its queries, which in this lane are 2 t and 2 t + 1."""
        pair = self.of_columns(factor)
        return [one * pair[i % 2] for i, one in enumerate(result)]

    def of_columns(self, row_value: Value) -> list[Value]:
        """A number that a lane has for query g, for queries 2 t and 2 t + 1."""
        lanes = (self.t * 8, self.t * 8 + 4)
        return [from_lane(self.b, row_value, lane) for lane in lanes]

    def _add_values(self, state: State, weights: list[list[Value]], words: Sequence[Value]) -> None:
        part = self.value_part
        each = 4 * part.words
        for tile in range(self.spec.tiles):
            mine = words[tile * each : (tile + 1) * each]
            rows = [
                part.expand(self.b, mine[i : i + part.words]) for i in range(0, each, part.words)
            ]
            probabilities = [one[4 * tile : 4 * tile + 4] for one in weights]
            if self.spec.value_groups == 1:
                probabilities = self._of_codes(state, probabilities, tile)
            elif self.spec.quantized:
                rows = self._of_groups(rows, tile)
            self._multiply(state, rows, self._packed(probabilities))

    def _packed(self, weights: list[list[Value]]) -> list[list[Value]]:
        """Weights of 16 keys as operands."""
        half = self.spec.half
        return [[pack_halves(self.b, half, *one[i : i + 2]) for i in (0, 2)] for one in weights]

    def _multiply(self, state: State, rows: list[list[Value]], packed: list[list[Value]]) -> None:
        """O^T += V^T P^T for 16 keys."""
        b = self.b
        near = [one for pair in zip(rows[0], rows[1], strict=True) for one in across(b, *pair)]
        far = [one for pair in zip(rows[2], rows[3], strict=True) for one in across(b, *pair)]
        half = len(near) // 2
        for result, pair in zip(state.result, packed, strict=True):
            for i in range(half):
                a = [near[i], near[i + half], far[i], far[i + half]]
                at = slice(_REGISTERS_OF_O * i, _REGISTERS_OF_O * (i + 1))
                result[at] = b.mma(self.kind, a, pair, result[at])

    def _of_codes(self, state: State, weights: list[list[Value]], tile: int) -> list[list[Value]]:
        """Weights by the scales of the values; their products with the minima go into the state."""
        b = self.b
        scales: list[Value] = []
        minima: list[Value] = []
        for row in (0, 8):
            found = self.scales.of_values(self.stage, self.t * 2, tile * TILE + row)
            scales += found[0]
            minima += found[1]
        for i, one in enumerate(weights):
            for weight, minimum in zip(one, minima, strict=True):
                state.minima[i] = b.fma(weight, minimum, state.minima[i])
        return [[w * s for w, s in zip(one, scales, strict=True)] for one in weights]

    def _of_groups(self, rows: list[list[Value]], tile: int) -> list[list[Value]]:
        """What codes mean whose features share scales: all that a lane has of a key are of one."""
        b, spec = self.b, self.spec
        group = self._value_element() // (spec.head_dim // spec.value_groups)
        scales = [
            one
            for row in (0, 8)
            for one in self.scales.of_groups(self.stage, group, self.t * 2, tile * TILE + row)
        ]
        return [
            [fused_halves(b, pair, scale, minimum) for pair in row]
            for row, (scale, minimum) in zip(rows, scales, strict=True)
        ]


def name(spec: DecodeSpec) -> str:
    """The kernel's name."""
    cache = "_".join(re.findall(r"\w+", spec.cache))
    kind = "part" if spec.part else "decode"
    return f"{kind}_{cache}_{spec.softmax}_g{spec.queries}_d{spec.head_dim}"


def decode_image(spec: DecodeSpec, arch: Arch, called: str = "") -> KernelImage:
    """The kernel of a decode attention for `arch`, under a name if not its own; CodegenError."""
    return Decode(spec, called).build(arch)


def decode_module(spec: DecodeSpec, called: str = "") -> ModuleOp:
    """The module of that kernel."""
    return Decode(spec, called).module()


def warp_bytes(spec: DecodeSpec) -> int:
    """Shared memory of a warp: the scales of two steps."""
    return 2 * stage_bytes(spec)


def key_rows(spec: DecodeSpec) -> list[int]:
    """Keys of a step whose parts a lane reads, beside its own g."""
    return [*range(0, spec.step, 8)]


def value_rows(spec: DecodeSpec) -> list[int]:
    """Keys of a step of whose values a lane reads parts, beside its own 2 t."""
    return [tile + row for tile in range(0, spec.step, 16) for row in _VALUE_ROWS]
