"""Attention with eviction: a token takes a slot, its query attends to all slots that are taken.

See `sparse_attn.retain`. Work is that of the slots, however long the text is.
"""

from dataclasses import dataclass

from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute

from nybble.backends.cpu.kernels import mathlib
from nybble.backends.cpu.kernels.attention_tile import MASKED
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f32, i32, vec
from nybble.backends.cpu.kernels.loops import largest_lane, padded_rows
from nybble.dialects.sparse_attn.retain import ACCUMULATED, LAST, LEARNED

LANES = 16
_VECTOR = vec(LANES, f32)


@dataclass(frozen=True)
class Retain:
    """q f32 [n, q_heads * d], new_k, new_v f32 [n, kv_heads * d] -> out like q.

    keys [kv_heads, d, slots], values [kv_heads, slots, d] of `element` are updated in place; where
    tokens are chosen `by` a score so are moves i32 [kv_heads, positions], which are read otherwise,
    and mass f32 [kv_heads, 1 + queries, slots]. scores f32 [n, kv_heads]. budget: slots that are
    not of the ring. run: tokens that go together. Shared out by key heads, whose rows follow each
    other.
    """

    kv_heads: int
    head_dim: int
    slots: int
    budget: int
    q_heads: int
    rows: int
    scale: float
    threads: int
    positions: int
    run: int = 1
    by: str | None = ACCUMULATED
    queries: int = 0
    element: Attribute = f32

    def __post_init__(self) -> None:
        if self.slots % LANES or self.head_dim % LANES:
            raise ValueError(
                f"{self.slots} slots of {self.head_dim} features: both must be multiples of {LANES}"
            )

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.q_heads // self.kv_heads

    @property
    def recent(self) -> int:
        """Slots of the ring."""
        return self.slots - self.budget

    @property
    def buffers(self) -> list[BufferSpec]:
        """q, new_k, new_v, keys, values, moves, mass and scores where there are, out, scratch."""
        rows, held = padded_rows(self.rows), self.kv_heads * self.slots
        q, new = rows * self.q_heads * self.head_dim, rows * self.kv_heads * self.head_dim
        mass = BufferSpec("mass", held * (1 + self.queries), f32)
        scores = BufferSpec("scores", rows * self.kv_heads, f32)
        return [
            BufferSpec("q", q, f32),
            BufferSpec("new_k", new, f32),
            BufferSpec("new_v", new, f32),
            BufferSpec("keys", held * self.head_dim, self.element),
            BufferSpec("values", held * self.head_dim, self.element),
            BufferSpec("moves", self.kv_heads * self.positions, i32),
            *([mass] if self.by else []),
            *([scores] if self.by == LEARNED else []),
            BufferSpec("out", q, f32),
            BufferSpec("scratch", self.threads * self.group * self.slots, f32),
        ]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        n = b.const(1) if self.rows == 1 else b.n
        with b.for_(*b.partition(self.kv_heads)) as head, b.for_(0, n) as row:
            step = Step(b, self, head.iv, row.iv)
            step.admit()
            step.attend()
        return b.finish()


class Step:
    """Emits what a row does in a head of the cache."""

    def __init__(self, b: KernelBuilder, spec: Retain, head: Value, row: Value) -> None:
        self.b, self.spec = b, spec
        self.position = b.pos + row
        self.ring = self.position % spec.recent + spec.budget
        self.moves = head * spec.positions
        self.mass = head * ((1 + spec.queries) * spec.slots)
        self.score = row * spec.kv_heads + head
        self.first = head * spec.slots * spec.head_dim
        self.new = (row * spec.kv_heads + head) * spec.head_dim
        self.query = (row * spec.q_heads + head * spec.group) * spec.head_dim
        self.scratch = b.tid * (spec.group * spec.slots)

    # -- who stays

    def admit(self) -> None:
        """Give the row's token a slot of the ring, and what it drives out one of the others."""
        b, spec = self.b, self.spec
        place = self.moves + self.position % spec.positions
        if spec.by:
            self._choose(place)
        slot = b.to_index(b.buffer("moves").load(place))
        with b.if_(slot.ne(self.ring) & (slot >= 0) & (slot < spec.slots)):
            self._move(slot)
        for offset in range(0, spec.head_dim, LANES):
            key, value = (
                b.to_float(b.buffer(one).vload(self.new + offset, LANES), spec.element)
                for one in ("new_k", "new_v")
            )
            b.buffer("values").vstore(value, self._value(self.ring) + offset)
            for lane in range(LANES):
                b.buffer("keys").store(b.extract(key, lane), self._key(offset + lane) + self.ring)
        if spec.by:
            self._begin()

    def _key(self, component: int | Value) -> Value:
        return self.b.value(component) * self.spec.slots + self.first

    def _value(self, slot: Value) -> Value:
        return slot * self.spec.head_dim + self.first

    def _added(self, query: int | Value) -> Value:
        """Where mass has what a query added, or (0) the sums."""
        return self.b.value(query) * self.spec.slots + self.mass

    def _choose(self, place: Value) -> None:
        """Write to moves where what the token drives out goes; back to the ring drops it."""
        b, spec, moves = self.b, self.spec, self.b.buffer("moves")

        def go(slot: Value) -> None:
            moves.store(b.from_index(slot, i32), place)

        token = self.position - spec.recent
        go(b.select(self.position < spec.recent, self.ring, token))
        with b.if_(self.position >= spec.slots):
            offset = token % spec.run
            with b.if_(offset.eq(0)):
                go(self._least())
            with b.if_(offset > 0):
                before = b.to_index(moves.load((self.position - 1) % spec.positions + self.moves))
                go(b.select(before < spec.budget, before + 1, self.ring))

    def _least(self) -> Value:
        """Of the runs before the ring the slot of the least one, or the one driven out."""
        b, spec, mass = self.b, self.spec, self.b.buffer("mass")
        with b.for_(0, spec.run, inits=[b.const(0.0, f32)]) as own:
            place = (self.position + own.iv) % spec.recent + spec.budget
            own.yield_(own.args[0] + mass.load(self.mass + place))
        with b.for_(0, spec.budget, spec.run, inits=[self.ring, own.results[0]]) as loop:
            slot, least = loop.args
            with b.for_(0, spec.run, inits=[b.const(0.0, f32)]) as run:
                run.yield_(run.args[0] + mass.load(self.mass + loop.iv + run.iv))
            mine = run.results[0]
            less = mine < least
            loop.yield_(b.select(less, loop.iv, slot), b.select(less, mine, least))
        return loop.results[0]

    def _move(self, slot: Value) -> None:
        """Copy the token that is driven out of the ring."""
        b, keys, values = self.b, self.b.buffer("keys"), self.b.buffer("values")
        with b.for_(0, self.spec.head_dim) as loop:
            at = self._key(loop.iv)
            keys.store(keys.load(at + self.ring), at + slot)
        for offset in range(0, self.spec.head_dim, LANES):
            held = values.vload(self._value(self.ring) + offset, LANES)
            values.vstore(held, self._value(slot) + offset)
        if self.spec.by:
            mass = b.buffer("mass")
            with b.for_(0, 1 + self.spec.queries) as query:
                at = self._added(query.iv)
                mass.store(mass.load(at + self.ring), at + slot)

    def _begin(self) -> None:
        """The score of a token that nobody has looked at yet."""
        b, mass = self.b, self.b.buffer("mass")
        if self.spec.by == LEARNED:
            mass.store(b.buffer("scores").load(self.score), self.mass + self.ring)
            return
        with b.for_(0, 1 + self.spec.queries) as query:
            mass.store(b.const(0.0, f32), self._added(query.iv) + self.ring)

    # -- attention

    def attend(self) -> None:
        """Logits, probabilities, what they add to the mass, and the sum of values."""
        b, spec = self.b, self.spec
        heavy = b.select(self.position + 1 > spec.recent, self.position + 1 - spec.recent, 0)
        heavy = b.min(heavy, spec.budget)
        taken = b.min(self.position + 1, spec.recent) + spec.budget
        peaks = self._scores(heavy, taken)
        inverses = [self._exponentials(member, peak) for member, peak in enumerate(peaks)]
        self._weigh(inverses)
        for member in range(spec.group):
            sums = [b.const(0.0, _VECTOR)] * (spec.head_dim // LANES)
            for bounds in ((b.const(0), heavy), (b.const(spec.budget), taken)):
                sums = self._sum(member, bounds, sums)
            for i, total in enumerate(sums):
                at = self.query + (member * spec.head_dim + i * LANES)
                b.buffer("out").vstore(total, at)

    def _weight(self, member: int, slot: Value) -> Value:
        return self.scratch + (member * self.spec.slots) + slot

    def _scores(self, heavy: Value, taken: Value) -> list[Value]:
        """Base-2 logits of all slots; the largest of each query head, as a vector."""
        b, spec = self.b, self.spec
        lane = b.const(list(range(LANES)), vec(LANES, i32))
        ends = [b.broadcast(b.from_index(one, i32), LANES) for one in (heavy, taken)]
        lowest = [b.const(MASKED, _VECTOR)] * spec.group
        with b.for_(0, spec.slots, LANES, inits=lowest) as loop:
            slot = b.broadcast(b.from_index(loop.iv, i32), LANES) + lane
            live = (slot < ends[0]) | ((slot >= spec.budget) & (slot < ends[1]))
            zeros = [b.const(0.0, _VECTOR)] * spec.group
            with b.for_(0, spec.head_dim, inits=zeros) as inner:
                keys = b.to_float(b.buffer("keys").vload(self._key(inner.iv) + loop.iv, LANES))
                inner.yield_(*self._products(inner.iv, keys, inner.args))
            peaks: list[Value] = []
            for member, total in enumerate(inner.results):
                scaled = total * (spec.scale * mathlib.LOG2_E)
                logit = b.select(live, scaled, b.const(MASKED, _VECTOR))
                b.buffer("scratch").vstore(logit, self._weight(member, loop.iv))
                peaks.append(b.max(loop.args[member], logit))
            loop.yield_(*peaks)
        return [b.broadcast(largest_lane(b, one), LANES) for one in loop.results]

    def _products(self, component: Value, keys: Value, sums: list[Value]) -> list[Value]:
        b, width = self.b, self.spec.head_dim
        places = (self.query + (member * width) + component for member in range(len(sums)))
        queries = (b.broadcast(b.buffer("q").load(one), LANES) for one in places)
        return [b.fma(query, keys, total) for query, total in zip(queries, sums, strict=True)]

    def _exponentials(self, member: int, peak: Value) -> Value:
        """Exponentials in the place of logits; one over their sum, as a vector."""
        b, scratch = self.b, self.b.buffer("scratch")
        with b.for_(0, self.spec.slots, LANES, inits=[b.const(0.0, _VECTOR)]) as loop:
            at = self._weight(member, loop.iv)
            logit = scratch.vload(at, LANES)
            power = mathlib.exp2_nonpositive(b, logit - peak)
            power = b.select(logit > MASKED, power, b.const(0.0, _VECTOR))
            scratch.vstore(power, at)
            loop.yield_(loop.args[0] + power)
        return b.broadcast(1.0 / b.reduce("add", loop.results[0]), LANES)

    def _weigh(self, inverses: list[Value]) -> None:
        """Probabilities in the place of exponentials; their sums are added to the mass."""
        b, scratch, by = self.b, self.b.buffer("scratch"), self.spec.by
        with b.for_(0, self.spec.slots, LANES) as loop:
            total = b.const(0.0, _VECTOR)
            for member, inverse in enumerate(inverses):
                at = self._weight(member, loop.iv)
                weight = scratch.vload(at, LANES) * inverse
                scratch.vstore(weight, at)
                total = total + weight
            if by in (ACCUMULATED, LAST):
                self._add(total, loop.iv)
        if by == LAST:
            with b.if_(((self.position + 1) % self.spec.queries).eq(0)):
                self._sum_anew()

    def _add(self, weights: Value, slot: Value) -> None:
        """Add to the sums of some slots, and take off what the oldest query added."""
        mass, at = self.b.buffer("mass"), self.mass + slot
        sums = mass.vload(at, LANES) + weights
        if self.spec.by == LAST:
            place = self._added(self.position % self.spec.queries + 1) + slot
            sums = sums - mass.vload(place, LANES)
            mass.vstore(weights, place)
        mass.vstore(sums, at)

    def _sum_anew(self) -> None:
        """Sums of what is there, lest errors of differences add up."""
        b, mass = self.b, self.b.buffer("mass")
        with b.for_(0, self.spec.slots, LANES) as loop:
            with b.for_(1, 1 + self.spec.queries, inits=[b.const(0.0, _VECTOR)]) as query:
                query.yield_(query.args[0] + mass.vload(self._added(query.iv) + loop.iv, LANES))
            mass.vstore(query.results[0], self.mass + loop.iv)

    def _sum(self, member: int, bounds: tuple[Value, Value], sums: list[Value]) -> list[Value]:
        """Sums so far and the weighted values of a range of slots."""
        b = self.b
        with b.for_(*bounds, inits=sums) as loop:
            weight = b.broadcast(b.buffer("scratch").load(self._weight(member, loop.iv)), LANES)
            at = self._value(loop.iv)
            values = [
                b.to_float(b.buffer("values").vload(at + i * LANES, LANES))
                for i in range(len(sums))
            ]
            loop.yield_(*(b.fma(weight, v, s) for v, s in zip(values, loop.args, strict=True)))
        return loop.results
