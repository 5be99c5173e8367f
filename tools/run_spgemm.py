"""`nybble run A.mtx B.mtx --target spgemm`: a product on a simulator, or timed by the model."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nybble.backends.llvm.workers import close_idle
from nybble.backends.spgemm.choose import choose, sized
from nybble.backends.spgemm.image import Setup
from nybble.backends.spgemm.machine import Machine, find_machine
from nybble.backends.spgemm.model.timing import Timing, simulate
from nybble.backends.spgemm.model.trace import Trace, trace
from nybble.backends.spgemm.program import compiled
from nybble.backends.spgemm.run import ENGINES, PLAIN, Engine, Job, find_engine, image_of, run
from nybble.dialects.errors import NybbleError
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.schedule import PRESETS, Schedule
from nybble.frontend.sparse_files import read
from nybble.tools.diagnostics import UsageError
from nybble.tools.files import write_output
from nybble.tools.report.plots import phases
from nybble.tools.target import ChosenTarget

MODEL, AUTO = "model", "auto"
SCHEDULES = (*PRESETS, AUTO)


@dataclass(frozen=True)
class SparseRun:
    """What was asked. engine: a simulator's name, or "model"; harts: None for the machine's.

    plot: a file for the phases, as SVG, of the model.
    """

    lhs: str
    rhs: str
    target: ChosenTarget
    schedule: str = AUTO
    engine: str = MODEL
    harts: int | None = None
    plot: str | None = None


def run_spgemm(asked: SparseRun) -> dict[str, object]:
    """The keys of `--json`; raises NybbleError."""
    if asked.plot is not None and asked.engine != MODEL:
        raise UsageError(f"--plot with engine '{asked.engine[:40]}'", accepted=f"engine {MODEL}")
    machine = find_machine(asked.target.level)
    lhs, rhs = (widened(read(Path(path))) for path in (asked.lhs, asked.rhs))
    threads = asked.harts or int(machine.threads.value)
    setup = Setup(threads, scratchpad=int(machine.scratchpad.value))
    name, how = scheduled(asked.schedule, lhs, rhs, machine, setup)
    told: dict[str, object] = {
        "target": str(asked.target), "engine": asked.engine, "schedule": name, **asdict(how),
    }  # fmt: skip
    try:
        if asked.engine == MODEL:
            timed = time(lhs, rhs, how, machine.having(threads=threads))
            if asked.plot is not None:
                drawn = phases(timed.phases, timed.cycles, machine.pipes.value)
                write_output(asked.plot, drawn.encode())
            return told | {"threads": threads} | asdict(timed)
        harts = asked.harts or 1
        outcome = run(Job(lhs, rhs, how, harts, scratchpad=setup.scratchpad), find(asked.engine))
    finally:
        close_idle()
    return told | {
        "harts": harts, "entries": outcome.product.nnz, "spilled": outcome.spilled,
        **outcome.figures, "agrees": agrees(lhs, rhs, outcome.product),
    }  # fmt: skip


def find(name: str) -> Engine:
    """The engine of that name, which must be there."""
    engine = find_engine(name)
    engine.check()
    return engine


def widened(matrix: SparseMatrix) -> SparseMatrix:
    """The matrix with values of a type that programs take."""
    matrix.check()
    if matrix.element.name in ("f64", "f32", "i64"):
        return matrix
    if matrix.element.is_float:
        raise NybbleError(f"a matrix of {matrix.element.name}", accepted="f64, f32, i64, i32, i8")
    return matrix.with_values(matrix.values.astype(np.int64))


def scheduled(
    name: str, lhs: SparseMatrix, rhs: SparseMatrix, machine: Machine, setup: Setup
) -> tuple[str, Schedule]:
    """The name and the schedule that was asked for; what the cost model takes for "auto"."""
    if name == AUTO:
        choice = choose(lhs, rhs, machine, setup)
        return choice.name, choice.how
    width = lhs.values.dtype.itemsize
    return name, sized(PRESETS[name], (lhs.shape[0], rhs.shape[1]), width, setup)


def time(lhs: SparseMatrix, rhs: SparseMatrix, how: Schedule, machine: Machine) -> Timing:
    """What the machine takes."""
    return simulate(traced(lhs, rhs, how, machine), machine, how)


def traced(lhs: SparseMatrix, rhs: SparseMatrix, how: Schedule, machine: Machine) -> Trace:
    """What the program does. Programs are traced with i64, whose sums are one instruction, as those
    of floats are with `+xspgemm`.
    """
    left, right = (one.with_values(np.ones(one.nnz, np.int64)) for one in (lhs, rhs))
    job = Job(left, right, how, 1, scratchpad=int(machine.scratchpad.value))
    elf = compiled(how, "i64", PLAIN)
    return trace(elf, image_of(job, ENGINES["qemu"]), int(machine.line.value))


def agrees(lhs: SparseMatrix, rhs: SparseMatrix, product: SparseMatrix) -> bool:
    """Whether a product is what SciPy computes, sums of floats up to their rounding."""
    from scipy.sparse import csr_array

    left, right, found = (
        csr_array((one.values, one.indices, one.indptr), shape=one.shape)
        for one in (lhs, rhs, product)
    )
    error = abs(left @ right - found)
    if lhs.values.dtype == np.int64:
        return error.count_nonzero() == 0
    allowed = abs(left) @ abs(right) * (float(np.finfo(lhs.values.dtype).eps) * lhs.shape[1])
    return bool((error > allowed).nnz == 0)
