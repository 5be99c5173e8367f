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

LANES = 16
_VECTOR = vec(LANES, f32)


@dataclass(frozen=True)
class Retain:
    """q f32 [n, q_heads * d], new_k, new_v f32 [n, kv_heads * d] -> out like q.

    keys [kv_heads, d, slots], values [kv_heads, slots, d] of `element`, mass f32 [kv_heads, slots]
    are updated in place. budget: slots that are not of the ring. Shared out by key heads, whose
    rows follow each other.
    """

    kv_heads: int
    head_dim: int
    slots: int
    budget: int
    q_heads: int
    rows: int
    scale: float
    threads: int
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
        """q, new_k, new_v, keys, values, mass, out, scratch."""
        rows, held = padded_rows(self.rows), self.kv_heads * self.slots
        q, new = rows * self.q_heads * self.head_dim, rows * self.kv_heads * self.head_dim
        return [
            BufferSpec("q", q, f32),
            BufferSpec("new_k", new, f32),
            BufferSpec("new_v", new, f32),
            BufferSpec("keys", held * self.head_dim, self.element),
            BufferSpec("values", held * self.head_dim, self.element),
            BufferSpec("mass", held, f32),
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
        self.mass = head * spec.slots
        self.first = head * spec.slots * spec.head_dim
        self.new = (row * spec.kv_heads + head) * spec.head_dim
        self.query = (row * spec.q_heads + head * spec.group) * spec.head_dim
        self.scratch = b.tid * (spec.group * spec.slots)

    # -- who stays

    def admit(self) -> None:
        """Give the row's token a slot of the ring, and what it drives out one of the others."""
        b, spec = self.b, self.spec
        with b.if_(self.position >= spec.recent):
            free = self.position - spec.recent
            with b.if_(free < spec.budget):
                self._move(free)
            with b.if_(free >= spec.budget):
                slot = self._least()
                with b.if_(slot.ne(self.ring)):
                    self._move(slot)
        for offset in range(0, spec.head_dim, LANES):
            key, value = (
                b.to_float(b.buffer(one).vload(self.new + offset, LANES), spec.element)
                for one in ("new_k", "new_v")
            )
            b.buffer("values").vstore(value, self._value(self.ring) + offset)
            for lane in range(LANES):
                b.buffer("keys").store(b.extract(key, lane), self._key(offset + lane) + self.ring)
        b.buffer("mass").store(b.const(0.0, f32), self.mass + self.ring)

    def _key(self, component: int | Value) -> Value:
        return self.b.value(component) * self.spec.slots + self.first

    def _value(self, slot: Value) -> Value:
        return slot * self.spec.head_dim + self.first

    def _least(self) -> Value:
        """Of the slots before the ring that with the least mass, or the one driven out."""
        b, mass = self.b, self.b.buffer("mass")
        start = [self.ring, mass.load(self.mass + self.ring)]
        with b.for_(0, self.spec.budget, inits=start) as loop:
            slot, least = loop.args
            mine = mass.load(self.mass + loop.iv)
            less = mine < least
            loop.yield_(b.select(less, loop.iv, slot), b.select(less, mine, least))
        return loop.results[0]

    def _move(self, slot: Value) -> None:
        """Copy the token that is driven out of the ring."""
        b, keys, values, mass = (self.b, *map(self.b.buffer, ("keys", "values", "mass")))
        with b.for_(0, self.spec.head_dim) as loop:
            at = self._key(loop.iv)
            keys.store(keys.load(at + self.ring), at + slot)
        for offset in range(0, self.spec.head_dim, LANES):
            held = values.vload(self._value(self.ring) + offset, LANES)
            values.vstore(held, self._value(slot) + offset)
        mass.store(mass.load(self.mass + self.ring), self.mass + slot)

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
        b, scratch, mass = self.b, self.b.buffer("scratch"), self.b.buffer("mass")
        with b.for_(0, self.spec.slots, LANES) as loop:
            total = b.const(0.0, _VECTOR)
            for member, inverse in enumerate(inverses):
                at = self._weight(member, loop.iv)
                weight = scratch.vload(at, LANES) * inverse
                scratch.vstore(weight, at)
                total = total + weight
            at = self.mass + loop.iv
            mass.vstore(mass.vload(at, LANES) + total, at)

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
