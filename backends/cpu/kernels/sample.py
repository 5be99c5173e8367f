"""Choosing the next token from logits: greedy, or temperature, top-k and top-p with a seed.

The definition is `dialects.numpy_ref.sample`, followed operation by operation: weights are
integers, so every sum is exact and the token is the reference's. Thresholds of top-k and top-p are
found by bisection on the bits of the sort key, each step one pass over the vocabulary. One thread
does the work: a greedy choice is one pass.
"""

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.dialects import arith
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute

from nybble.backends.building.values import f64, lanes, with_element
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f32, i32, i64, vec
from nybble.backends.cpu.kernels.loops import largest_lane, load
from nybble.backends.cpu.kernels.mathlib import ROUNDING_MAGIC
from nybble.dialects.numpy_ref import sample as ref

_LANES = 16
_MINUS_INFINITY, _INFINITY = float("-inf"), float("inf")
_INT_MAX, _INT_MIN = 0x7FFFFFFF, -0x80000000


@dataclass(frozen=True)
class Sample:
    """logits f32 [vocab] and the options, one element each -> token i32 [1].

    temperature f32, top_k i32, top_p f32, seed i64, position i64 (of the token chosen). scratch
    i32 keeps the sort keys and the weights.
    """

    vocab: int

    @property
    def padded(self) -> int:
        """The vocabulary rounded up to whole vectors."""
        return -(-self.vocab // _LANES) * _LANES

    @property
    def buffers(self) -> list[BufferSpec]:
        """logits, temperature, top_k, top_p, seed, position, token, scratch."""
        return [
            BufferSpec("logits", self.vocab, f32),
            BufferSpec("temperature", 1, f32),
            BufferSpec("top_k", 1, i32),
            BufferSpec("top_p", 1, f32),
            BufferSpec("seed", 1, i64),
            BufferSpec("position", 1, i64),
            BufferSpec("token", 1, i32),
            BufferSpec("scratch", 2 * self.padded, i32),
        ]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        with b.if_(b.tid.eq(0)):
            peak, best = _Logits(b, self.vocab).largest()
            b.buffer("token").store(best, 0)
            temperature = b.buffer("temperature").load(0)
            with (
                b.if_(temperature >= ref.COLDEST),
                b.if_(b.abs(peak) < _INFINITY),
            ):
                self._sample(b, peak, temperature)
        return b.finish()

    def _sample(self, b: KernelBuilder, peak: Value, temperature: Value) -> None:
        weights = _Weights(b, self.padded)
        weights.fill(_Logits(b, self.vocab), peak, temperature)
        top_k, top_p = b.buffer("top_k").load(0), b.buffer("top_p").load(0)
        with b.if_(top_k > 0), b.if_(top_k < self.vocab):
            weights.keep_top_k(top_k)
        with b.if_(top_p < 1.0):
            weights.keep_top_p(top_p)
        bits = random_bits(b, b.buffer("seed").load(0), b.buffer("position").load(0))
        b.buffer("token").store(weights.draw(bits), 0)


class _Logits:
    """The logits as vectors without NaN and without -0."""

    def __init__(self, b: KernelBuilder, vocab: int):
        self.b = b
        self.vocab = vocab

    def vector(self, offset: Value, mask: Value | None) -> Value:
        """16 logits; -inf for a NaN and past the end."""
        raw = load(self.b, self.b.buffer("logits"), offset, _LANES, mask, pad=_MINUS_INFINITY)
        nothing = self.b.const(_MINUS_INFINITY, raw.type)
        return self.b.select(raw.ne(raw), nothing, raw) + 0.0

    def for_each(
        self, step: Callable[[list[Value], Value, Value], list[Value]], inits: list[Value]
    ) -> list[Value]:
        """Fold `step(state, offset, logits)` over all vectors, the last one padded."""
        b, whole = self.b, self.vocab // _LANES * _LANES
        with b.for_(0, whole, _LANES, inits=inits) as loop:
            loop.yield_(*step(loop.args, loop.iv, self.vector(loop.iv, None)))
        if whole == self.vocab:
            return loop.results
        mask = b.first_lanes(b.const(self.vocab - whole), _LANES)
        return step(loop.results, b.const(whole), self.vector(b.const(whole), mask))

    def largest(self) -> tuple[Value, Value]:
        """The largest logit and its first index (i32); index 0 if all are -inf."""
        b = self.b
        lane = _lane_numbers(b)

        def step(state: list[Value], offset: Value, logits: Value) -> list[Value]:
            best, index = state
            better = logits > best
            here = lane + b.broadcast(b.from_index(offset, i32), _LANES)
            return [b.select(better, logits, best), b.select(better, here, index)]

        start = b.const(_MINUS_INFINITY, vec(_LANES, f32))
        best, index = self.for_each(step, [start, lane])
        peak = largest_lane(b, best)
        candidates = b.select(best.eq(b.broadcast(peak, _LANES)), index, _INT_MAX)
        return peak, b.reduce("minsi", candidates)


class _Weights:
    """Sort keys and integer weights of the tokens, in the scratch buffer."""

    def __init__(self, b: KernelBuilder, padded: int):
        self.b = b
        self.padded = padded
        self.scratch = b.buffer("scratch")

    def key(self, offset: Value) -> Value:
        """16 keys: integers in the order of the logits."""
        return self.scratch.vload(offset, _LANES)

    def weight(self, offset: Value) -> Value:
        """16 weights."""
        return self.scratch.vload(offset + self.padded, _LANES)

    def fill(self, logits: _Logits, peak: Value, temperature: Value) -> None:
        """Compute keys and weights from the logits."""
        b = self.b
        rate = float(ref.LOG2_E) / b.min(temperature, float(ref.HOTTEST))
        center, factor = b.broadcast(peak, _LANES), b.broadcast(rate, _LANES)

        def step(state: list[Value], offset: Value, values: Value) -> list[Value]:
            self.scratch.vstore(_sort_key(b, values), offset)
            weight = _weight(b, (values - center) * factor)
            self.scratch.vstore(weight, offset + self.padded)
            return state

        logits.for_each(step, [])

    def keep_top_k(self, top_k: Value) -> None:
        """Zero the weights of all but the `top_k` (i32) largest keys."""
        b = self.b

        def count(least: Value) -> Value:
            bound = b.broadcast(least ^ _INT_MIN, _LANES)
            return self._sum(
                lambda at: b.select(self.key(at) >= bound, b.const(1, bound.type), 0), i32
            )

        threshold = self._bisect(31, lambda least: count(least) >= top_k) ^ _INT_MIN
        bound = b.broadcast(threshold, _LANES)
        above = self._sum(lambda at: b.select(self.key(at) > bound, b.const(1, bound.type), 0), i32)
        self._cut(self.key, threshold, top_k - above)

    def keep_top_p(self, top_p: Value) -> None:
        """Keep the fewest of the largest weights whose sum reaches the share `top_p` (f32)."""
        b = self.b
        total = self._sum(self.weight, i64)
        share = b.emit(arith.ExtFOp, (b.max(top_p, 0.0),), f64)
        target = b.fptosi(b.sitofp(total, f64) * share, i64)
        target = b.max(target, 1)

        def reaches(least: Value) -> Value:
            bound = b.broadcast(least, _LANES)
            return self._sum(lambda at: self._where(at, self.weight(at) >= bound), i64) >= target

        threshold = self._bisect(ref.WEIGHT_BITS, reaches)
        bound = b.broadcast(threshold, _LANES)
        above = self._sum(lambda at: self._where(at, self.weight(at) > bound), i64)
        wide = b.sext(threshold, i64)
        equal = (target - above + wide - 1) // wide
        self._cut(self.weight, threshold, b.trunc(equal, i32))

    def draw(self, bits: Value) -> Value:
        """The token at which the running sum of weights passes `bits` / 2^64 of the total."""
        b = self.b
        target = _high_product(b, bits, self._sum(self.weight, i64))
        zero, none = b.const(0, i64), b.const(0)
        with b.for_(0, self.padded, _LANES, inits=[zero, none, zero]) as loop:
            before, vector, at_vector = loop.args
            after = before + b.reduce("add", b.zext(self.weight(loop.iv), i64))
            here = (after > target) & (before <= target)
            chosen = b.select(here, loop.iv, vector)
            loop.yield_(after, chosen, b.select(here, before, at_vector))
        _, vector, before = loop.results
        token = b.const(0)
        for lane in range(_LANES):
            place = vector + (self.padded + lane)
            after = before + b.zext(self.scratch.load(place), i64)
            here = (after > target) & (before <= target)
            token, before = b.select(here, vector + lane, token), after
        return b.from_index(token, i32)

    def _where(self, at: Value, kept: Value) -> Value:
        return self.b.select(kept, self.weight(at), 0)

    def _sum(self, term: Callable[[Value], Value], element: Attribute) -> Value:
        """Sum of `term(offset)`, vectors of non-negative i32, over all offsets."""
        b = self.b
        zero = b.const(0, vec(_LANES, element))
        with b.for_(0, self.padded, _LANES, inits=[zero]) as loop:
            value = term(loop.iv)
            loop.yield_(loop.args[0] + (value if element == i32 else b.zext(value, element)))
        return b.reduce("add", loop.results[0])

    def _bisect(self, top_bit: int, holds: Callable[[Value], Value]) -> Value:
        """The largest unsigned number of `top_bit` + 1 bits for which `holds`, or 0 (as i32)."""
        b = self.b
        with b.for_(0, top_bit + 1, inits=[b.const(0, i32)]) as loop:
            bit = b.const(1, i32) << (top_bit - b.from_index(loop.iv, i32))
            raised = loop.args[0] | bit
            loop.yield_(b.select(holds(raised), raised, loop.args[0]))
        return loop.results[0]

    def _cut(self, rank: Callable[[Value], Value], threshold: Value, equal: Value) -> None:
        """Zero weights whose rank is below the threshold, and all but the first `equal` at it."""
        b = self.b
        bound = b.broadcast(threshold, _LANES)
        ones = b.const(1, bound.type)
        with b.for_(0, self.padded, _LANES, inits=[equal]) as loop:
            ranks = rank(loop.iv)
            ties = b.select(ranks.eq(bound), ones, 0)
            place = _inclusive_sum(b, ties)
            within = place <= b.broadcast(loop.args[0], _LANES)
            kept = (ranks > bound) | (ranks.eq(bound) & within)
            self.scratch.vstore(self._where(loop.iv, kept), loop.iv + self.padded)
            loop.yield_(loop.args[0] - b.extract(place, _LANES - 1))


def random_bits(b: KernelBuilder, seed: Value, position: Value) -> Value:
    """64 random bits (i64) for a seed and a position: splitmix64, see the reference."""
    z = seed + (position + 1) * _signed(ref.GOLDEN)
    z = (z ^ z.shr(30)) * _signed(ref.MIX_1)
    z = (z ^ z.shr(27)) * _signed(ref.MIX_2)
    return z ^ z.shr(31)


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def _lane_numbers(b: KernelBuilder) -> Value:
    return b.const(list(range(_LANES)), vec(_LANES, i32))


def _sort_key(b: KernelBuilder, values: Value) -> Value:
    """i32 in the order of f32 numbers other than NaN."""
    bits = b.bitcast(values, with_element(values.type, i32))
    return bits ^ ((bits >> 31) & _INT_MAX)


def _weight(b: KernelBuilder, power: Value) -> Value:
    """trunc(2^30 * 2^power) as i32, with the roundings of the reference (no fused operations)."""
    clamped = b.max(power, float(ref.LOWEST_POWER))
    shifted = clamped + ROUNDING_MAGIC
    rest = clamped - (shifted - ROUNDING_MAGIC)
    value = b.const(float(ref.EXP2_COEFFICIENTS[-1]), rest.type)
    for coefficient in ref.EXP2_COEFFICIENTS[-2::-1]:
        value = value * rest + float(coefficient)
    integers = with_element(power.type, i32)
    exponent = (b.bitcast(shifted, integers) + ref.WEIGHT_BITS) << 23
    return b.fptosi(b.bitcast(b.bitcast(value, integers) + exponent, power.type))


def _inclusive_sum(b: KernelBuilder, value: Value) -> Value:
    """Running sum over the lanes of integers."""
    count = lanes(value.type)
    zero = b.const(0, value.type)
    step = 1
    while step < count:
        moved = [count] * step + list(range(count - step))
        value = value + b.shuffle(value, zero, moved)
        step *= 2
    return value


def _high_product(b: KernelBuilder, x: Value, y: Value) -> Value:
    """The high 64 bits of the product of two unsigned i64."""
    product = arith.MulUIExtendedOp(x.ssa, y.ssa)
    b.block.add_op(product)
    return Value(b, product.results[1])
