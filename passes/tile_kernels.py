"""Pass `tile-kernels`: choose the sizes of each kernel's loops with the cost model, and say why.

Before:

```mlir
func.func @f(%x: tensor<1x64xf32>, %g: tensor<64xf32>) -> tensor<1x64xf32> {
  %r = fused.kernel "norm"(%x, %g) : (tensor<1x64xf32>, tensor<64xf32>) -> tensor<1x64xf32>
      schedule #schedule.kernel<"cpu", "vector", {tokens = 1 : i64}, "no matrix product"> {
  ^bb0(%0: tensor<1x64xf32>, %1: tensor<64xf32>):
    %2 = fused.rms_norm %0, %1 eps 1.000000e-05 : tensor<1x64xf32>, tensor<64xf32> ->
        tensor<1x64xf32>
    fused.yield %2 : tensor<1x64xf32>
  }
  func.return %r : tensor<1x64xf32>
}
```

After with `tile-kernels{reasons=false}`:

```mlir
func.func @f(%x: tensor<1x64xf32>, %g: tensor<64xf32>) -> tensor<1x64xf32> {
  %r = fused.kernel "norm"(%x, %g) : (tensor<1x64xf32>, tensor<64xf32>) -> tensor<1x64xf32>
      schedule #schedule.kernel<"cpu", "vector", {chains = 4 : i64, lanes = 8 : i64, tokens = 1 :
      i64}, "no matrix product"> {
  ^bb0(%0: tensor<1x64xf32>, %1: tensor<64xf32>):
    %2 = fused.rms_norm %0, %1 eps 1.000000e-05 : tensor<1x64xf32>, tensor<64xf32> ->
        tensor<1x64xf32>
    fused.yield %2 : tensor<1x64xf32>
  }
  func.return %r : tensor<1x64xf32>
}
```

A kernel keeps the sizes of its lowering where the model sees nothing that is clearly faster, has
measured nothing like it, or is of another level of instructions: see `costmodel.search`. Products
of one token keep theirs always: see `streams_weights`.

Does not handle: a choice of dataflow (`select-dataflow`); kernels whose lowering has no sizes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from nybble.costmodel.features.facts import Facts, UnknownKernelError, facts_of
from nybble.costmodel.features.table import SIZES, Call
from nybble.costmodel.learned.files import shipped
from nybble.costmodel.learned.model import CostModel
from nybble.costmodel.search import Answer, Question, search
from nybble.costmodel.targets.reader import target_for_level
from nybble.costmodel.targets.target import Target
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.schedule.attrs import KernelSchedule
from nybble.dialects.sparse_attn.cache_type import cache_shape
from nybble.dialects.sparse_attn.ops import AttentionOp
from nybble.passes.targets import Target as Backend
from nybble.passes.targets import load_target

TOKENS = "tokens"
USUAL_TOKENS, OTHER_TOKENS = 128, (16, 512)
"""Tokens of a call that a choice for many is made for, and those for which it must be right too."""
MOST_ROWS = 1024
"""Rows of weights that a choice is made for: further tiles repeat the same loops."""
CACHED, OTHER_CACHED = 512, (64, 1024)
"""Keys before a call of attention, likewise."""


@dataclass(frozen=True)
class TileKernels(ModulePass):
    """Write sizes into schedules; see the module's text.

    target, isa: for which machine; without a level, the target's lowest. threads: that share a
    kernel. reasons: whether to write down why.
    """

    name = "tile-kernels"
    target: str = "cpu"
    isa: str = "x86-64-v3"
    threads: int = 2
    reasons: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.threads < 1:
            raise NybbleError(f"threads must be at least 1, got {self.threads}")
        chooser = Chooser(
            shipped(), target_for_level(self.isa), load_target(self.target), self.isa, self.threads
        )
        for kernel, answer in chooser.answers(op):
            write(kernel, answer.schedule, answer.because() if self.reasons else "")


@dataclass(frozen=True)
class Chooser:
    """Asks a cost model about the kernels of a module."""

    model: CostModel
    target: Target
    backend: Backend
    isa: str
    threads: int

    def answers(self, module: Operation) -> Iterator[tuple[KernelOp, Answer]]:
        """Each kernel that leaves something to choose, with what the model says."""
        for kernel in [one for one in module.walk() if isinstance(one, KernelOp)]:
            question = self.question(kernel)
            if question is not None:
                yield kernel, search(question, self.model, self.target)

    def question(self, kernel: KernelOp) -> Question | None:
        """What to ask about a kernel; None where there is nothing to choose, or it is unknown."""
        schedule = kernel.schedule
        choices = self.backend.choices(kernel, self.isa, self.threads)
        if schedule is None or choices is None:
            return None
        sizes = schedule.sizes()
        tokens = sizes.pop(TOKENS, 1)
        try:
            facts = facts_of(kernel)
        except UnknownKernelError:
            return None
        call, *others = calls_of(facts, tokens, self.threads, keys_of(kernel))
        names = frozenset(choices.values())
        fixed = names if streams_weights(facts, call) else names - {*SIZES}
        return Question(facts, call, choices, sizes, others, fixed)


def calls_of(facts: Facts, tokens: int, threads: int, keys: int = 0) -> list[Call]:
    """The call that a choice for a kernel with room for some tokens is made for, then the others
    that it must be right for. keys: that its cache has room for."""
    counts = [min(tokens, USUAL_TOKENS), *(one for one in OTHER_TOKENS if one <= tokens)]
    if facts.family == "attention":
        pairs = [(n, cached) for cached in (CACHED, *OTHER_CACHED) for n in counts]
        fitting = [Call(n, 1, cached) for n, cached in pairs if n + cached <= keys]
        return fitting or [Call(counts[0], 1, max(0, keys - counts[0]))]
    if "weight_group" not in facts.numbers:
        return [Call(n) for n in counts]
    rows = int(facts.numbers["rows"])
    shares = max(min(threads, -(-rows // 64)), -(-rows // MOST_ROWS))
    return [Call(n, shares) for n in counts]


def streams_weights(facts: Facts, call: Call) -> bool:
    """Whether a call waits for weights: a product of one token, which reads all of them.

    A model's come from memory. Measurements, and models that are learned from them, are of weights
    that lie in the caches, and what is best there was up to a quarter slower.
    """
    return call.tokens == 1 and "weight_group" in facts.numbers


def keys_of(kernel: KernelOp) -> int:
    """How many keys the cache of an attention has room for; 0 for a kernel without one."""
    found = [op for op in kernel.body.block.ops if isinstance(op, AttentionOp)]
    return cache_shape(found[0].keys)[1] if found else 0


def write(kernel: KernelOp, options: Mapping[str, int], because: str) -> None:
    """Put sizes into a kernel's schedule, and why beside the reason that is there."""
    schedule = kernel.schedule
    assert schedule is not None
    sizes = {**schedule.sizes(), **options}
    reasons = [one for one in (schedule.because.data, because) if one]
    kernel.schedule = KernelSchedule.get(
        schedule.target.data,
        schedule.dataflow.data,
        dict(sorted(sizes.items())),
        "; ".join(reasons),
    )
