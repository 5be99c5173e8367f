"""What a program does, as events: taken from a run of one hart under qemu, by a plugin (trace.c).

An event says how many instructions and scratchpad accesses led to it, and what it is: an access to
memory that is not near, a copy by DMA, a new row, a barrier, or a new part of an accumulator that
harts share out. A thread keeps the last line of each array that it reads, so that only a new line
is an event. Copies of `nybble_dma` count as the device's, not as loops.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.backends.spgemm.engines import qemu
from nybble.backends.spgemm.engines.outcome import Outcome
from nybble.backends.spgemm.image import Image, Region
from nybble.backends.spgemm.model.library import library
from nybble.backends.spgemm.rv.frame import KERNEL
from nybble.backends.spgemm.rv.symbols import addresses

EVENT = np.dtype(
    [
        ("instructions", np.uint32), ("waits", np.uint16), ("posts", np.uint16),
        ("bytes", np.uint32), ("kind", np.uint16), ("line", np.uint16),
    ]
)  # fmt: skip
"""waits: scratchpad accesses whose result is waited for; posts: others. line: of the access."""
KINDS = ("near", "load", "store", "dma", "task", "barrier", "part")
FAR = (
    "A_INDPTR", "A_INDICES", "A_VALUES", "B_INDPTR", "B_INDICES", "B_VALUES", "OUT_KEYS",
    "OUT_VALUES", "WINDOW_TABLE", "M_INDPTR", "M_INDICES",
)  # fmt: skip
NOWHERE = Region("", 0, 0)
SECONDS = 600.0


@dataclass(frozen=True)
class Trace:
    """events: of EVENT. totals: as the plugin counted them by itself. outcome: of the run."""

    events: NDArray[Any]
    totals: Mapping[str, int]
    outcome: Outcome


def trace(elf: bytes, image: Image, line: int = 64, flat: bool = False, buffered: int = 0) -> Trace:
    """Run a program of one hart whose setup reports; raises EngineError.

    line: bytes that a thread keeps of each array; 0 makes every access an event. flat: whether all
    memory is far, the scratchpad and the stack too, and copies are loops. buffered: how many of the
    last stores, below 64, loads take values from; only without lines.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "events"
        numbers = {"line": line, "flat": int(flat), "buffered": buffered}
        given = ",".join(f"{name}={value:x}" for name, value in numbers.items())
        options = f"path={path},{given},ranges={_ranges(elf, image)}"
        outcome = qemu.run(elf, image, SECONDS, f"{library('trace')},{options}")
        events = np.fromfile(path, EVENT)
    totals = {name: int(value) for name, value in outcome.figures.items()}
    return Trace(events, totals, outcome)


def _ranges(elf: bytes, image: Image) -> str:
    """The plugin's ranges, in its order."""
    symbols = function_ranges(elf)
    regions = image.regions
    near = Region("near", regions["SYNC"].start, max(one.end for one in regions.values()))
    chosen = [
        symbols[KERNEL], symbols["nybble_barrier"], symbols["nybble_dma"], near,
        regions.get("M_INDPTR", regions["A_INDPTR"]), regions["B_VALUES"],
        regions.get("STAGE_VALUES", NOWHERE), regions.get("KEYS", NOWHERE),
        *(regions.get(name, NOWHERE) for name in FAR),
    ]  # fmt: skip
    return "-".join(f"{one.start:x}-{one.end:x}" for one in chosen) + "-"


def function_ranges(elf: bytes) -> dict[str, Region]:
    """Name -> addresses of the kernel, the barrier and the copy of an ELF file."""
    found = addresses(elf)
    ends = {KERNEL: found[KERNEL] + found[f"{KERNEL}:size"]}
    ends |= {name: found[f"{name}_end"] for name in ("nybble_barrier", "nybble_dma")}
    return {name: Region(name, found[name], end) for name, end in ends.items()}
