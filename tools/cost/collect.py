"""`nybble cost collect`: measure schedules until the time is over, and log every one at once."""

import gc
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from nybble import __version__
from nybble.backends.cpu.codegen import compile_module
from nybble.backends.cpu.machine import Machine, native
from nybble.backends.cpu.object_code import inspect
from nybble.backends.llvm.toolchain import CodegenError, versions
from nybble.costmodel.data.log import Log
from nybble.costmodel.data.measurement import Measurement, Stand, Workload, key_of
from nybble.costmodel.features.table import Call
from nybble.tools.bench.machine import describe_host
from nybble.tools.cost.measuring import Measurer
from nybble.tools.cost.subject import Subject, numpy_name
from nybble.tools.cost.worker import Batch, Turn
from nybble.tools.cost.workloads import Load

TOGETHER = 12
"""Kernels that are compiled as one module: starting the tools takes longer than a kernel."""


@dataclass(frozen=True)
class Plan:
    """What to collect. seconds: budget. rounds: of each measurement.

    machine: what code is made for, another one that this machine can stand for; None for itself.
    """

    seconds: float
    rounds: int = 6
    seed: int = 0
    machine: Machine | None = None


@dataclass(frozen=True)
class Status:
    """For whoever watches: what is done, and what is going on."""

    seconds_left: float
    measured: int
    failed: int
    doing: str


def stand(machine: Machine | None = None) -> Stand:
    """What measurements here hold for. machine: as in `Plan`."""
    target = f"{describe_host().cpu} {machine or native()}"
    return Stand(target, f"nybble-{__version__}+{versions()}")


def workload(subject: Subject, call: Call) -> Workload:
    """A call of a subject, as a log has it."""
    return Workload(subject.text, call.tokens, call.shares, call.cached)


Report = Callable[[Status], None]


@contextmanager
def uncollected() -> Generator[None]:
    """Python's collector of cyclic garbage waits: it takes a third of the time of building IR."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


class Collection:
    """Measures loads one after the other."""

    def __init__(self, log: Log, plan: Plan, report: Report) -> None:
        self.log = log
        self.plan = plan
        self.report = report
        self.stand = stand(plan.machine)
        self.end = time.monotonic() + plan.seconds
        self.known = log.keys()
        self.measured = self.failed = 0

    def run(self, loads: Iterator[Load], measurer: Measurer) -> None:
        """Until the time is over, or the loads are."""
        with uncollected():
            for load in loads:
                if time.monotonic() > self.end:
                    return
                self._load(load, measurer)

    def _say(self, doing: str) -> None:
        left = max(0.0, self.end - time.monotonic())
        self.report(Status(left, self.measured, self.failed, doing))

    def _load(self, load: Load, measurer: Measurer) -> None:
        """One subject: all its calls take turns."""
        subject = load.subject
        candidates = subject.some_candidates(load.candidates, self.plan.seed)
        missing = [one for one in candidates if self._missing(subject, one, load.calls)]
        if not missing:
            return
        default = candidates[0]
        chosen = [default, *(one for one in missing if one != default)]
        self._say(f"{load.family}: compiling {len(chosen)} kernels")
        built = Built(subject, self.plan.machine)
        for start in range(0, len(chosen), TOGETHER):
            built.add(chosen[start : start + TOGETHER])
            if time.monotonic() > self.end:
                break
        self._say(f"{load.family}: measuring {len(built.options)} kernels")
        self.log.add(self._measure(built, load, measurer))

    def _missing(self, subject: Subject, options: dict[str, int], calls: tuple[Call, ...]) -> bool:
        keys = {key_of(workload(subject, call), options, self.stand) for call in calls}
        return not keys <= self.known

    def _measure(self, built: "Built", load: Load, measurer: Measurer) -> list[Measurement]:
        batch, owners = built.batch(load.calls, self.plan)
        found = measurer.measure(batch)
        made: list[Measurement] = []
        for number, (index, call) in enumerate(owners):
            made.append(
                Measurement(
                    workload(load.subject, call),
                    built.options[index],
                    self.stand,
                    tuple(found.seconds.get(number, ())),
                    built.code.get(index, {}),
                    found.failures.get(number),
                )
            )
        for options, fault in built.refused:
            made += [
                Measurement(workload(load.subject, call), options, self.stand, failure=fault)
                for call in load.calls
            ]
        self.known |= {one.key for one in made}
        self.failed += sum(one.failure is not None for one in made)
        self.measured += len(made)
        return made


class Built:
    """The compiled candidates of a subject."""

    def __init__(self, subject: Subject, machine: Machine | None = None) -> None:
        self.subject = subject
        self.machine = machine
        self.options: list[dict[str, int]] = []
        self.sizes: list[list[int]] = []
        self.objects: list[bytes] = []
        self.code: dict[int, dict[str, int]] = {}
        self.refused: list[tuple[dict[str, int], str]] = []

    def add(self, candidates: list[dict[str, int]]) -> None:
        """Compile some candidates as one module; one by one where that fails."""
        try:
            self._add(candidates)
        except CodegenError as fault:
            if len(candidates) == 1:
                self.refused.append((candidates[0], f"does not compile: {fault.message}"))
                return
            for one in candidates:
                self.add([one])

    def _add(self, candidates: list[dict[str, int]]) -> None:
        functions: list[FuncOp] = []
        sizes: list[list[int]] = []
        first = len(self.options)
        for i, options in enumerate(candidates):
            function, size = self.subject.build(options, f"k{first + i}")
            functions.append(function)
            sizes.append(size)
        data = compile_module(ModuleOp(functions), self.machine)
        del functions
        gc.collect()
        counts = inspect(data)
        self.code |= {first + i: counts.get(f"k{first + i}", {}) for i in range(len(candidates))}
        self.objects.append(data)
        self.options += candidates
        self.sizes += sizes

    def batch(self, calls: tuple[Call, ...], plan: Plan) -> tuple[Batch, list[tuple[int, Call]]]:
        """What the worker runs, and whose each turn is: (candidate, call)."""
        binding = self.subject.bound(self.subject.choices.settle({}))
        specs = binding.kernel.buffers
        owners = [(i, call) for i in range(len(self.options)) for call in calls]
        turns = [
            Turn(f"k{i}", tuple(self.sizes[i]), call.tokens, call.shares, call.cached)
            for i, call in owners
        ]
        outputs = [
            i for i, slot in enumerate(binding.slots) if type(slot).__name__ in ("Out", "Partial")
        ]
        batch = Batch(
            tuple(self.objects),
            tuple(numpy_name(spec.dtype) for spec in specs),
            self.subject.inputs,
            tuple(outputs),
            tuple(turns),
            plan.rounds,
            plan.seed,
        )
        return batch, owners
