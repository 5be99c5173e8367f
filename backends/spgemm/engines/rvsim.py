"""Programs on rvsim: a model of pipelines, caches and memory that others wrote, hart by hart.

It knows no scratchpad, no DMA and none of our instructions, so it runs plain rv64imafd.
"""

import struct
from dataclasses import dataclass
from importlib import util
from typing import Any

from nybble.backends.spgemm.engines.outcome import EngineError, Outcome, read_report
from nybble.backends.spgemm.image import Image, bind
from nybble.backends.spgemm.problem import PROBLEM, Word
from nybble.backends.spgemm.rv.runtime import TEXT

PACKAGE = "pip install 'nybble[spgemm]'"
CLOCK_MHZ = 1000
DEVICES = 0x40_0000_0000
"""Where its disk goes, which is in the middle of our memory otherwise."""


@dataclass(frozen=True)
class Machine:
    """Single-issue harts in order. cached: with L1 and L2 caches; else none but for instructions.

    latency: cycles of a memory access. bandwidth: bytes a cycle of all harts together.
    """

    cached: bool = True
    latency: int = 100
    bandwidth: float = 16.0


def check() -> None:
    """Raise EngineError where rvsim is missing."""
    if util.find_spec("rvsim") is None:
        raise EngineError("rvsim is not installed", accepted=PACKAGE)


def run(
    elf: bytes,
    image: Image,
    harts: int,
    machine: Machine | None = None,
    cycles: int = 400_000_000,
) -> Outcome:
    """Run a program; raises EngineError, also after that many cycles.

    The figures are `cycles` and `instructions`.
    """
    check()
    from rvsim import Simulator

    simulator = Simulator(_config(machine or Machine(), image, harts), elf_data=bind(elf, image))
    code = simulator.run(limit=cycles)
    if code is None:
        raise EngineError(f"rvsim did not finish in {cycles} cycles")
    if code:
        raise EngineError(f"rvsim ended with status {code}")
    figures = {
        "cycles": float(simulator.cycle),
        "instructions": float(simulator.instructions_retired),
    }
    return read_report(image, _report(simulator, image), figures)


def _config(machine: Machine, image: Image, harts: int) -> Any:
    from rvsim import BranchPredictor, Cache, Config
    from rvsim.config import Backend, MemoryController

    size = PROBLEM - TEXT + image.size
    caches: dict[str, Any] = {"l1d": None, "l2": None}
    if machine.cached:
        caches = {
            "l1d": Cache("16KB", ways=4, latency=2, mshr_count=4),
            "l2": Cache("128KB", ways=8, latency=8),
        }
    gigabytes = machine.bandwidth * CLOCK_MHZ * 1e6 / 2**30
    return Config(
        width=1,
        backend=Backend.InOrder(),
        branch_predictor=BranchPredictor.Static(),
        l1i=Cache("16KB", ways=4, latency=1),
        memory_controller=MemoryController.Simple(
            latency=machine.latency, bandwidth_gib_s=gigabytes
        ),
        ram_size=f"{-(-size // 2**20)}MB",
        hart_count=harts,
        uart_quiet=True,
        initial_sp=0,
        cpu_clock_mhz=CLOCK_MHZ,
        disk_base=DEVICES,
        **caches,
    )


def _report(simulator: Any, image: Image) -> bytes:
    """What the program would have written to file 1."""
    head = simulator.read_phys_bytes(PROBLEM, 8 * Word.COUNT)
    words = struct.unpack(f"<{int(Word.COUNT)}q", head)
    count = words[Word.OUT_COUNT]
    keys = simulator.read_phys_bytes(words[Word.OUT_KEYS], 8 * count) if count else b""
    size = image.dtype.itemsize * count
    values = simulator.read_phys_bytes(words[Word.OUT_VALUES], size) if count else b""
    return head + keys + values
