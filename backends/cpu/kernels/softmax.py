"""Log-likelihood of given tokens: the kernel behind perplexity."""

from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels import mathlib
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f32, i32
from nybble.backends.cpu.kernels.loops import (
    fold_vectors,
    largest_lane,
    load,
    padded_rows,
    tree,
)

_MINUS_INFINITY = float("-inf")


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """logits f32 [n, vocab], targets i32 [n] -> out f32 [n] = log(sum(exp(row))) - row[target].

    Targets must be in 0 .. vocab - 1: the caller checks. Shared out by rows.
    """

    vocab: int
    rows: int
    lanes: int = 16

    @property
    def buffers(self) -> list[BufferSpec]:
        """logits, targets, out."""
        rows = padded_rows(self.rows)
        return [
            BufferSpec("logits", rows * self.vocab, f32),
            BufferSpec("targets", rows, i32),
            BufferSpec("out", rows, f32),
        ]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        logits, targets, out = b.buffers
        with b.for_(*b.partition(b.n)) as row:
            base = row.iv * self.vocab
            peak = self._peak(b, base)
            total = self._sum(b, base, peak)
            target = logits.load(base + b.to_index(targets.load(row.iv)))
            out.store(mathlib.log(b, total) + (peak - target), row.iv)
        return b.finish()

    def _load(self, b: KernelBuilder, at: Value, mask: Value | None) -> Value:
        return load(b, b.buffer("logits"), at, self.lanes, mask, pad=_MINUS_INFINITY)

    def _peak(self, b: KernelBuilder, base: Value) -> Value:
        def step(best: Value, offset: Value, mask: Value | None) -> Value:
            values = self._load(b, base + offset, mask)
            return b.max(best, values)

        partial = fold_vectors(b, self.vocab, self.lanes, _MINUS_INFINITY, step)
        return largest_lane(b, tree(partial, b.max))

    def _sum(self, b: KernelBuilder, base: Value, peak: Value) -> Value:
        center = b.broadcast(peak, self.lanes)

        def step(total: Value, offset: Value, mask: Value | None) -> Value:
            values = self._load(b, base + offset, mask)
            return total + mathlib.exp2_nonpositive(b, (values - center) * mathlib.LOG2_E)

        partial = fold_vectors(b, self.vocab, self.lanes, 0.0, step)
        return b.reduce("add", tree(partial, lambda x, y: x + y))
