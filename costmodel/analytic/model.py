"""What a whole model asks of a target: a line for each kernel, summed over a phase.

The questions are those of LLM-Viewer (arXiv:2402.16363) and GenZ (arXiv:2406.01698): how long
prompts and answers take, what limits each kernel, and whether weights and caches fit. The kernels
are those of the compiler's own IR, so that what is counted is what is compiled.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from xdsl.ir import Operation

from nybble.costmodel.analytic.cost import NOTHING, Cost
from nybble.costmodel.analytic.roofline import Estimate, time
from nybble.costmodel.analytic.rules import cost_of
from nybble.costmodel.analytic.work import CostOptions
from nybble.costmodel.targets.target import Target
from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.sparse_attn.cache_type import cache_shape
from nybble.dialects.sparse_attn.ops import AttentionOp


@dataclass(frozen=True)
class Part:
    """A function of a model. times: how often a forward pass calls it, with `options`."""

    name: str
    times: int
    kernels: Sequence[Operation]
    options: CostOptions


@dataclass(frozen=True)
class Line:
    """All runs of one kernel in a phase.

    part: the function that it is of. kernel: its name, operations: what it computes. cost: of all
    `cost.launches` runs; seconds: the same. terms: unit, memory level or "launch" -> seconds that
    it alone would take. bound, limit: of the run that takes longest.
    """

    part: str
    kernel: str
    operations: tuple[str, ...]
    cost: Cost
    seconds: float
    bound: str
    limit: str
    terms: Mapping[str, float] = field(hash=False)

    def __add__(self, other: "Line") -> "Line":
        longer = max(self, other, key=lambda one: one.seconds / max(one.cost.launches, 1))
        names = dict.fromkeys([*self.terms, *other.terms])
        return replace(
            longer,
            cost=self.cost + other.cost,
            seconds=self.seconds + other.seconds,
            terms={name: self.terms.get(name, 0) + other.terms.get(name, 0) for name in names},
        )


@dataclass(frozen=True)
class Phase:
    """A prompt read, or one token of each text written. tokens: of all texts together."""

    name: str
    tokens: int
    lines: tuple[Line, ...]

    @property
    def seconds(self) -> float:
        """Of the whole phase: kernels run one after another."""
        return sum(line.seconds for line in self.lines)

    @property
    def cost(self) -> Cost:
        """Of the whole phase."""
        return sum((line.cost for line in self.lines), NOTHING)

    @property
    def bounds(self) -> dict[str, float]:
        """What limits kernels -> the share of the time that they take, the largest first."""
        found: dict[str, float] = {}
        for line in self.lines:
            found[line.bound] = found.get(line.bound, 0.0) + line.seconds
        largest = sorted(found.items(), key=lambda item: -item[1])
        return {bound: seconds / self.seconds for bound, seconds in largest}

    @property
    def bound(self) -> str:
        """What limits the kernels that take most of the time."""
        return next(iter(self.bounds))

    @property
    def tokens_per_second(self) -> float:
        """Of all texts together."""
        return self.tokens / self.seconds


def phase(name: str, tokens: int, parts: Iterable[Part], target: Target) -> Phase:
    """The phase that calls the parts; parts of one name are chunks of one prompt."""
    found: dict[tuple[str, int], Line] = {}
    for part in parts:
        for index, kernel in enumerate(part.kernels):
            line = _line(part, kernel, target)
            key = (part.name, index)
            found[key] = found[key] + line if key in found else line
    return Phase(name, tokens, tuple(found.values()))


def _line(part: Part, kernel: Operation, target: Target) -> Line:
    one, cost = estimated(kernel, target, part.options)
    return Line(
        part.name,
        kernel.kernel_name.data if isinstance(kernel, KernelOp) else kernel.name,
        operations_of(kernel),
        cost * part.times,
        one.seconds * part.times,
        one.bound,
        one.limit,
        {name: seconds * part.times for name, seconds in one.terms.items()},
    )


def estimated(kernel: Operation, target: Target, options: CostOptions) -> tuple[Estimate, Cost]:
    """The time of one run of a kernel, and its cost."""
    cost = cost_of(kernel, target, options)
    return time(cost, target, options.cores), cost


def end_of_context(kernel: Operation, tokens: int) -> int:
    """Tokens before the last `tokens` that the caches hold which a kernel attends to; 0 without."""
    caches = [cache_shape(op.keys)[1] for op in kernel.walk() if isinstance(op, AttentionOp)]
    return max(0, min(caches, default=tokens) - tokens)


def operations_of(kernel: Operation) -> tuple[str, ...]:
    """The names of what a kernel computes, or of the operation itself."""
    if not isinstance(kernel, KernelOp):
        return (kernel.name,)
    return tuple(op.name for op in kernel.body.block.ops if not isinstance(op, YieldOp))
