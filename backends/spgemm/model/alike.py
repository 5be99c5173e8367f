"""The cycle model as a machine that rvsim knows: harts in order, one a pipeline, on plain memory.

It has no scratchpad, no DMA and no data caches, so what remains of the model is how rows and slots
are shared out, what a thread waits for, and what channels can move.
"""

from dataclasses import dataclass

from nybble.backends.spgemm.engines import rvsim
from nybble.backends.spgemm.image import Image
from nybble.backends.spgemm.machine import Machine, find_machine
from nybble.backends.spgemm.model.trace import Trace, trace

BUS = 4
"""Cycles of rvsim's bus on the way to memory, its default `bus_latency`."""
BUFFERED = 16
"""Stores whose values rvsim gives to loads before memory has them: by the loads that were free."""
BARRIER = 6
"""Accesses in a row from the last hart's arrival to all going on: the generation, the count, two
stores behind fences, and the two loads by which the others look for them (rv/runtime.py)."""


@dataclass(frozen=True)
class Run:
    """A program of one hart on rvsim, and its trace where all memory is far."""

    traced: Trace
    cycles: float


def flat_trace(elf: bytes, image: Image) -> Trace:
    """The trace of a program on a machine as rvsim's; see `trace`."""
    return trace(elf, image, line=0, flat=True, buffered=BUFFERED)


def latency(peer: rvsim.Machine) -> int:
    """Cycles that a load of the peer takes."""
    return peer.latency + BUS


def gap_of(runs: list[Run], peer: rvsim.Machine) -> float:
    """Cycles of an instruction apart from loads, branches that were not foreseen included."""
    busy = sum(
        run.cycles - int((run.traced.events["kind"] == 1).sum()) * latency(peer) for run in runs
    )
    return busy / sum(run.traced.totals["instructions"] for run in runs)


def machine_alike(peer: rvsim.Machine, harts: int, gap: float) -> Machine:
    """The model's machine in the place of rvsim's with so many harts."""
    return find_machine("piuma-like").having(
        threads=harts, pipes=harts, gap=gap, far_latency=latency(peer), far_bytes=peer.bandwidth,
        channels=1, queue=float("inf"), barrier=BARRIER * latency(peer), dma_instructions=0,
    )  # fmt: skip
