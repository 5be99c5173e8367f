"""The inner loops of products by popcounts: counts of differing bits, group by group.

Rows come in strips, a vector register of 32-bit lanes each. Counts of plane pairs (i, j) are kept
by their weight i + j, so that W by A planes need W + A - 1 sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, i32, vec
from nybble.backends.cpu.kernels.matmul.bitcount import BitCount, bit_count
from nybble.backends.cpu.kernels.matmul.bitserial import BitserialSpec

Step = Callable[[Value, Sequence[Value]], list[Value]]
"""(word of the group, counts) -> counts."""


@dataclass(frozen=True)
class Counting:
    """How a spec's bits are counted on its instruction set."""

    b: KernelBuilder
    spec: BitserialSpec

    @property
    def form(self) -> BitCount:
        """The instructions."""
        return bit_count(self.spec.isa)

    @property
    def lanes(self) -> int:
        """Rows of a strip."""
        return self.form.lanes

    @property
    def weights(self) -> int:
        """Different weights i + j of plane pairs."""
        return self.spec.weight.bits + self.spec.bits - 1

    @property
    def room(self) -> int:
        """Words whose counts of one weight may be added up."""
        return self.form.room // min(self.spec.weight.bits, self.spec.bits)

    def sums(self, targets: int, unroll: int, step: Step) -> list[Value]:
        """i32 lanes `sum_ij 2^(i+j) popcount(..)` over a group, for each of `targets`.

        step: adds the counts of one word; its counts are [target][weight].
        """
        b = self.b
        room = min(self.room, self.spec.words)
        room -= room % unroll if room > unroll else 0
        totals = [b.const(0, vec(self.lanes, i32))] * targets
        whole, rest = divmod(self.spec.words, room)
        if whole > 1:
            with b.for_(0, whole * room, room, inits=totals) as span:
                span.yield_(*self._span(span.iv, room, span.args, unroll, step))
            totals = span.results
        elif whole:
            totals = self._span(b.const(0), room, totals, unroll, step)
        return self._span(b.const(whole * room), rest, totals, unroll, step) if rest else totals

    def _span(
        self, first: Value, words: int, totals: Sequence[Value], unroll: int, step: Step
    ) -> list[Value]:
        """Add the counts of a few words to i32 totals."""
        b = self.b
        counts = [b.const(0, self.form.kind)] * (len(totals) * self.weights)
        looped = words // unroll * unroll if words > unroll else 0
        if looped:
            with b.for_(first, first + looped, unroll, inits=counts) as loop:
                loop.yield_(*self._words(loop.iv, unroll, loop.args, step))
            counts = loop.results
        counts = self._words(first + looped, words - looped, counts, step)
        return [
            self._weighted(total, counts[i * self.weights : (i + 1) * self.weights])
            for i, total in enumerate(totals)
        ]

    def _words(self, first: Value, count: int, counts: Sequence[Value], step: Step) -> list[Value]:
        for word in range(count):
            counts = step(first + word, counts)
        return [*counts]

    def _weighted(self, total: Value, counts: Sequence[Value]) -> Value:
        for weight, count in enumerate(counts):
            lanes = self.form.total(self.b, count)
            total = total + (lanes << weight if weight else lanes)
        return total

    def pairs(self, counts: Sequence[Value], count: Callable[[int, int], Value]) -> list[Value]:
        """counts [weight] of one target with `count(i, j)` of every plane pair added."""
        added = [*counts]
        for i in range(self.spec.weight.bits):
            for j in range(self.spec.bits):
                added[i + j] = added[i + j] + count(i, j)
        return added

    def product(self, differing: Value, start: Value) -> Value:
        """f32 lanes of `start - 2 differing`: the integer product of a group."""
        b = self.b
        return b.sitofp(b.broadcast(start, self.lanes) - (differing << 1))

    def start(self, group: Value) -> Value:
        """The i32 that a group's product starts at, `K (2^W - 1) (2^A - 1) + offset * z`.

        group: index in s and z.
        """
        b, weight = self.b, self.spec.weight
        most = b.const(weight.group * self.spec.pairs, i32)
        return b.buffer("z").load(group) * weight.offset + most if weight.offset else most
