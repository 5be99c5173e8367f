"""Runs cases in worker processes, a batch of kernels at a time, and sums up what they found."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from nybble.dialects.errors import InternalError, NybbleError
from nybble.tools.verify.batch import Batch, advanced, compiled, function_name
from nybble.tools.verify.cases import MISFIT, Case, Draw, Kernel
from nybble.tools.verify.data import make
from nybble.tools.verify.judge import Judgement, judge
from nybble.tools.verify.pool import runner

KERNELS = 12
"""Kernels that are compiled in one module."""
ERRORS = 200
"""Cases that must be refused, which take no compilation, in a batch."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Outcome:
    """A case and its judgement. ran: whether a kernel was run, not only refused as it must be."""

    case: Case
    judgement: Judgement
    ran: bool

    def report(self) -> dict[str, object]:
        """The case in the words of the command's report."""
        kernel = self.case.kernel
        return {
            "case": self.case.number,
            "format": kernel.spec,
            "shape": [kernel.rows, kernel.cols],
            "tokens": self.case.tokens,
            "dataflow": kernel.dataflow,
            "activations": kernel.activations,
            "epilogue": kernel.epilogue,
            "data": self.case.data,
            "error": self.judgement.nmse,
            "fault": self.judgement.fault,
        }


@dataclass(frozen=True)
class Task:
    """Cases whose kernels are of one dataflow and mode, to be run together."""

    draw: Draw
    numbers: tuple[int, ...]


def tasks(draw: Draw, numbers: Iterable[int]) -> list[Task]:
    """The cases in batches."""
    by_kernel: dict[Kernel, list[int]] = {}
    for number in numbers:
        by_kernel.setdefault(draw.case(number).kernel, []).append(number)
    alike: dict[tuple[str, str], list[Kernel]] = {}
    for kernel in by_kernel:
        key = (kernel.dataflow, kernel.activations)
        alike.setdefault(key, []).append(kernel)
    return [
        Task(draw, tuple(number for kernel in some for number in by_kernel[kernel]))
        for kernels in alike.values()
        for some in parts(kernels, ERRORS if kernels[0].is_error else KERNELS)
    ]


def parts(kernels: Sequence[Kernel], size: int) -> list[Sequence[Kernel]]:
    """A list in parts of at most `size`."""
    return [kernels[first : first + size] for first in range(0, len(kernels), size)]


def run_task(task: Task) -> list[Outcome]:
    """Run the cases of a task in this process."""
    cases = [task.draw.case(number) for number in task.numbers]
    kernels = list(dict.fromkeys(case.kernel for case in cases))
    if kernels[0].is_error:
        return [Outcome(case, refused(task.draw, case), ran=False) for case in cases]
    try:
        batch = compiled(kernels, task.draw.isa)
    except (NybbleError, InternalError) as error:
        if len(kernels) == 1:
            judgement = Judgement(np.inf, f"did not compile: {error}")
            return [Outcome(case, judgement, ran=True) for case in cases]
        # one of them is at fault: find out which
        alone = [tuple(c.number for c in cases if c.kernel == kernel) for kernel in kernels]
        return [one for numbers in alone for one in run_task(Task(task.draw, numbers))]
    with closing(batch.executor):
        return [
            Outcome(case, run_case(task.draw, batch, case, kernels.index(case.kernel)), ran=True)
            for case in cases
        ]


def run_case(draw: Draw, batch: Batch, case: Case, index: int) -> Judgement:
    """Run one case on its compiled kernel."""
    name = function_name(index, case.kernel)
    try:
        data = make(case, draw.seed)
        wanted = batch.wanted(name, case, data)
        found = batch.found(name, case, data)
    except (NybbleError, InternalError) as error:
        return Judgement(np.inf, f"did not run: {error}")
    return judge(case, data, wanted.astype(np.float64), found.astype(np.float64))


def refused(draw: Draw, case: Case) -> Judgement:
    """Whether a kernel that cannot be is an error before code is generated, which says why."""
    kernel = case.kernel
    try:
        advanced([kernel], draw.isa, "fused")
    except NybbleError as error:
        told = str(kernel.cols) if kernel.dataflow == MISFIT else kernel.spec
        named = told in error.message
        return Judgement(0.0, "" if named else f"the error does not name {told}: {error.message}")
    return Judgement(np.inf, "it was not refused")


def run(draw: Draw, numbers: Sequence[int], jobs: int, progress: Progress) -> list[Outcome]:
    """The outcome of each case, in order; `progress` is told how many are done."""
    found: list[Outcome] = []
    planned = tasks(draw, numbers)
    with runner(min(jobs, len(planned)), run_task) as execute:
        for outcomes in execute(planned):
            found += outcomes
            progress(len(found))
    return sorted(found, key=lambda outcome: outcome.case.number)
