"""`nybble cost explain`: what the cost model thinks of each kernel of a file, and why."""

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.object_code import throughput
from nybble.backends.llvm.workers import close_idle
from nybble.costmodel.canonical import canonical
from nybble.costmodel.learned.model import ANALYTIC, COUNTS
from nybble.costmodel.search import Answer
from nybble.dialects.fused.kernel import KernelOp
from nybble.passes.tile_kernels import TOKENS, Chooser
from nybble.tools.cost.collect import Built
from nybble.tools.cost.subject import Subject

SHOWN_FACTORS = 6


@dataclass(frozen=True)
class Explained:
    """One kernel. Times in microseconds; factors: feature -> share of the learned correction's
    logarithm; counts: predicted of the compiled code; compiled: what that looks like in truth, and
    the cycles of a trip of its main loop by llvm-mca, empty unless it was asked for."""

    function: str
    kernel: str
    source: str
    novelty: float
    bottleneck: str
    schedule: dict[str, int]
    microseconds: float
    interval: list[float]
    terms: dict[str, float]
    factors: dict[str, float]
    counts: dict[str, float]
    runner_up: dict[str, object]
    candidates: int
    because: str
    compiled: dict[str, float]
    loop: str

    def lines(self) -> Iterator[str]:
        """The printed form."""
        low, high = self.interval
        yield (
            f"{self.function} {self.kernel}: {self.microseconds:.1f} us "
            f"({low:.1f} to {high:.1f} in 9 of 10 cases), {self.source}, "
            f"mostly {self.bottleneck}"
        )
        yield f"  schedule   {_spelled(self.schedule)}"
        yield f"  because    {self.because}"
        yield f"  terms      {', '.join(f'{k} {v:.1f} us' for k, v in self.terms.items())}"
        if self.factors:
            yield f"  factors    {', '.join(f'{k} {v:+.0%}' for k, v in self.factors.items())}"
        yield f"  code       {', '.join(f'{v:.0f} {k}' for k, v in self.counts.items())}"
        if self.compiled:
            counted = ", ".join(f"{v:.0f} {k}" for k, v in self.compiled.items())
            yield f"  compiled   {counted}"
            yield f"  main loop  {self.loop or 'none of vectors'}"
        yield (
            f"  runner-up  {_spelled(self.runner_up['schedule'])}, "
            f"{self.runner_up['microseconds']:.1f} us of {self.candidates} candidates"
        )


def _spelled(schedule: object) -> str:
    assert isinstance(schedule, dict)
    return ", ".join(f"{name} {value}" for name, value in schedule.items())


def explain(module: ModuleOp, chooser: Chooser, *, compiled: bool = False) -> list[Explained]:
    """Every kernel of a scheduled module that leaves something to choose.

    compiled: whether to compile each under the schedule that is taken, and to look at its code.
    """
    found = [
        explained(kernel, answer, chooser, compiled=compiled)
        for kernel, answer in chooser.answers(module)
    ]
    close_idle()
    return found


def explained(kernel: KernelOp, answer: Answer, chooser: Chooser, *, compiled: bool) -> Explained:
    """What is known of one kernel."""
    function = kernel.parent_op()
    question = chooser.question(kernel)
    assert question is not None
    found, taken, other = answer.prediction, answer.taken, answer.runner_up
    learned = found.source != ANALYTIC
    arguments = (question.facts, question.call)
    factors = chooser.model.factors(*arguments, answer.schedule, chooser.target) if learned else []
    counts = chooser.model.counts(*arguments, [answer.schedule], chooser.target)
    micro = found.seconds * 1e6
    code, loop = looked_at(kernel, answer, chooser) if compiled else ({}, "")
    return Explained(
        function=function.sym_name.data if isinstance(function, func.FuncOp) else "",
        kernel=kernel.kernel_name.data,
        source=found.source,
        novelty=round(found.novelty, 3),
        bottleneck=found.terms.bottleneck(taken),
        schedule=answer.schedule,
        microseconds=round(float(micro[taken]), 3),
        interval=[round(float(one[taken] * 1e6), 3) for one in (found.low, found.high)],
        terms={
            name: round(float(one[taken] * 1e6), 3) for name, one in found.terms.by_name.items()
        },
        factors={name: round(value, 4) for name, value in factors[:SHOWN_FACTORS]},
        counts={name: round(float(one[0]), 1) for name, one in counts.items()},
        runner_up={
            "schedule": answer.candidates[other],
            "microseconds": round(float(micro[other]), 3),
        },
        candidates=len(answer.candidates),
        because=answer.because(),
        compiled=code,
        loop=loop,
    )


def looked_at(kernel: KernelOp, answer: Answer, chooser: Chooser) -> tuple[dict[str, float], str]:
    """Counts of a kernel's code under the schedule that is taken, as the model predicts them, and a
    trip of its main loop by llvm-mca, empty for none."""
    schedule = kernel.schedule
    assert schedule is not None
    capacity = schedule.option(TOKENS) or 1
    built = Built(Subject(canonical(kernel), capacity, levels.get(chooser.isa)))
    built.add([dict(answer.schedule)])
    counts = built.code.get(0, {})
    summed = {name: sum(counts.get(one, 0) for one in parts) for name, parts in COUNTS.items()}
    trips = throughput(built.objects[0])
    return {name: float(one) for name, one in summed.items()}, str(trips.get("k0", ""))
