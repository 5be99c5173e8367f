"""Products on the accelerator: planned, compiled, and run on one of the simulators."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nybble.backends.spgemm.engines import qemu, rvsim, spike
from nybble.backends.spgemm.engines.outcome import Outcome, patience
from nybble.backends.spgemm.image import Image, Setup, make_image
from nybble.backends.spgemm.program import compiled
from nybble.backends.spgemm.rv.frame import PROFILES
from nybble.backends.spgemm.windows import Filling, plan
from nybble.dialects.errors import UnknownNameError
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.schedule import Schedule
from nybble.passes.convert_spgemm_to_program import MASKED

PLAIN, EXTENDED = PROFILES


@dataclass(frozen=True)
class Job:
    """A product to run, at the places of a mask if there is one.

    harts: how many. scratchpad: its bytes.
    """

    lhs: SparseMatrix
    rhs: SparseMatrix
    how: Schedule
    harts: int = 1
    filling: Filling = field(default_factory=Filling)
    scratchpad: int = 4 << 20
    mask: SparseMatrix | None = None


@dataclass(frozen=True)
class Engine:
    """A simulator. check raises where it is missing. profile: of the code that it runs.

    large: whether it is fast enough for matrices of
    more than some hundreds of products.
    """

    check: Callable[[], object]
    execute: Callable[[bytes, Image, Job], Outcome]
    profile: str = PLAIN
    reports: bool = True
    large: bool = True


ENGINES: Mapping[str, Engine] = {
    "qemu": Engine(qemu.program, lambda elf, image, job: qemu.run(elf, image, patience(job.harts))),
    "spike": Engine(spike.check, lambda elf, image, job: spike.run(elf, image, job.harts)),
    "spike+xspgemm": Engine(
        spike.check,
        lambda elf, image, job: spike.run(elf, image, job.harts, job.scratchpad),
        EXTENDED,
    ),
    "rvsim": Engine(
        rvsim.check,
        lambda elf, image, job: rvsim.run(elf, image, job.harts),
        reports=False,
        large=False,
    ),
}
"""Name -> simulator."""


def find_engine(name: str) -> Engine:
    """The engine of that name; raises UnknownNameError."""
    if name not in ENGINES:
        raise UnknownNameError(f"unknown engine '{name[:40]}'", accepted=", ".join(ENGINES))
    return ENGINES[name]


def image_of(job: Job, engine: Engine) -> Image:
    """The memory of a job on an engine; raises SparseError for what programs do not take."""
    if (job.mask is not None) != (job.how.accumulator == MASKED):
        raise SparseError(
            f"accumulator '{job.how.accumulator}' {'with' if job.mask else 'without'} a mask",
            accepted=f"'{MASKED}' with a mask, others without",
        )
    windows = plan(job.lhs, job.rhs, job.how, job.filling, job.mask)
    own = engine.profile == EXTENDED
    setup = Setup(job.harts, job.filling.entries, engine.reports, own, job.scratchpad)
    return make_image((job.lhs, job.rhs), job.how, windows, setup, job.mask)


def run(job: Job, engine: Engine) -> Outcome:
    """Run a product; raises NybbleError."""
    job.lhs.check()
    job.rhs.check()
    if job.lhs.values.dtype != job.rhs.values.dtype:
        raise SparseError(f"{job.lhs.element.name} times {job.rhs.element.name}", accepted="one")
    image = image_of(job, engine)
    elf = compiled(job.how, job.lhs.element.name, engine.profile)
    return engine.execute(elf, image, job)
