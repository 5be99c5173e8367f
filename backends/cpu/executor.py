"""A plan in memory, ready to run: buffers, loaded kernels, and the pool that runs the programs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nybble.backends.cpu import arena
from nybble.backends.cpu.artifact import Bytes, open_artifact
from nybble.backends.cpu.elf import ObjectError
from nybble.backends.cpu.host import allocate, request_amx, thread_count
from nybble.backends.cpu.loader import Library, load
from nybble.backends.cpu.plan import Plan, PlanError, Step
from nybble.backends.cpu.pool import Call, Pool, StepList, Ticks
from nybble.backends.cpu.runner import EXTERNALS


@dataclass(frozen=True)
class StepTime:
    """Ticks of the cycle counter that one step took, the barrier after it included."""

    program: str
    step: int
    kernel: str
    ticks: int


class Executor:
    """Runs the programs of a plan.

    library: the plan's kernels and the plan runner, loaded; weights: u8, as in weights.bin;
    threads: how many, at most what the plan allows. The plan's "init" program, if it has one, has
    run (with one row at position 0) when this is made.
    """

    def __init__(self, plan: Plan, library: Library, weights: Bytes, threads: int = 1) -> None:
        if not 1 <= threads <= plan.config.threads:
            raise PlanError(f"{threads} threads", accepted=f"1 to {plan.config.threads}")
        for kernel in plan.kernels:
            library.symbol(kernel.symbol)
        self.plan = plan
        self._library = library
        self._memory = _map(plan, weights)
        self._lists: dict[tuple[str, ...], StepList] = {}
        self._pool = Pool(library, threads)
        if "init" in plan.program_table:
            self.run(("init",), 1, 0)

    @classmethod
    def open(cls, directory: Path, threads: int | None = None) -> "Executor":
        """The artifact at `directory`, loaded; threads: by default one for each processor."""
        artifact = open_artifact(directory)
        if "+amx-tile" in artifact.machine.features and not request_amx():
            raise ObjectError(
                "the code uses AMX tiles and the kernel does not grant them",
                accepted="a compilation for a lower level",
            )
        library = load(artifact.objects(), EXTERNALS)
        available = min(thread_count(), artifact.plan.config.threads)
        return cls(artifact.plan, library, artifact.weights(), threads or available)

    @property
    def threads(self) -> int:
        """How many threads run the programs."""
        return self._pool.threads

    def close(self) -> None:
        """Ends the worker threads; nothing can run afterwards."""
        self._pool.close()

    def view(self, buffer: str, dtype: DTypeLike) -> NDArray[np.generic]:
        """The memory of a state or io buffer as a flat array; writing to it is writing to it."""
        return self._memory[buffer].view(dtype)

    def share(self, other: "Executor", buffers: Iterable[str]) -> None:
        """Let buffers be those of another executor, of at least as many bytes; before any run."""
        assert not self._lists, "programs that ran have the addresses of their own buffers"
        self._memory |= {name: other._memory[name] for name in buffers}

    def run(self, programs: tuple[str, ...], n: int, pos: int) -> None:
        """Runs these programs one after the other in one launch, for rows pos to pos + n."""
        self._check_rows(n, pos)
        self._pool.run(self._list(programs), n, pos)

    def profile(self, programs: tuple[str, ...], n: int, pos: int) -> list[StepTime]:
        """Runs as `run` does and tells how long each step took."""
        self._check_rows(n, pos)
        steps = self._list(programs)
        ticks = Ticks(steps.count)
        self._pool.run(steps, n, pos, ticks)
        taken = np.diff(ticks.cells).tolist()
        places = [
            (name, index, step.kernel)
            for name in programs
            for index, step in enumerate(self._program(name))
        ]
        return [StepTime(*place, time) for place, time in zip(places, taken, strict=True)]

    def _check_rows(self, n: int, pos: int) -> None:
        config = self.plan.config
        if not (0 <= n <= config.chunk and config.first <= pos <= config.context - n):
            raise PlanError(
                f"{n} rows at position {pos}",
                accepted=f"up to {config.chunk} rows and {config.context} positions",
            )

    @cached_property
    def _addresses(self) -> Mapping[str, int]:
        return {name: data.ctypes.data for name, data in self._memory.items()}

    def _program(self, name: str) -> tuple[Step, ...]:
        program = self.plan.program_table.get(name)
        if program is None:
            known = ", ".join(self.plan.program_table)
            raise PlanError(f"the plan has no program '{name}'", accepted=known)
        return program.steps

    def _list(self, programs: tuple[str, ...]) -> StepList:
        found = self._lists.get(programs)
        if found is None:
            found = self._lists[programs] = StepList(self._calls(programs))
        return found

    def _calls(self, programs: Iterable[str]) -> list[Call]:
        calls: list[Call] = []
        for name in programs:
            steps = self._program(name)
            for index, step in enumerate(steps):
                pointers = (self._addresses[ref.buffer] + ref.offset for ref in step.args)
                barrier = step.barrier or index == len(steps) - 1
                calls.append(Call(self._library.symbol(step.kernel), tuple(pointers), barrier))
        return calls


def _map(plan: Plan, weights: Bytes) -> dict[str, Bytes]:
    """Buffer name -> its memory, zeros but for the weights."""
    temporaries, states, io = arena.temporaries(plan), arena.states(plan), arena.io(plan)
    placed = (
        (arena.weights(plan), weights),
        (temporaries, allocate(temporaries.bytes)),
        (states, allocate(states.bytes, sparse=True)),
        (io, allocate(io.bytes, sparse=True)),
    )
    memory: dict[str, Bytes] = {}
    for placement, base in placed:
        if len(base) < placement.bytes:
            raise PlanError(f"{len(base)} bytes of weights", accepted=str(placement.bytes))
        for name, offset in placement.offsets.items():
            memory[name] = base[offset : offset + plan.buffer_table[name].bytes]
    return memory
