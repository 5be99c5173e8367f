"""How long a machine takes for the events of a trace: a simulation (timing.c), event by event.

Threads share pipelines, which issue an instruction a cycle; a thread's own instructions are `gap`
apart. Scratchpad accesses share its ports, and are waited for unless nobody reads what they give.
Loads wait for memory, stores until a queue has room, copies for the last byte. Rows go to threads
as the schedule says; every other phase is shared out by slots of the accumulator; threads meet at
barriers.
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from nybble.backends.spgemm.machine import Machine
from nybble.backends.spgemm.model.library import library
from nybble.backends.spgemm.model.trace import Trace
from nybble.dialects.errors import InternalError
from nybble.dialects.spgemm.schedule import Schedule

PHASES = ("clear", "products", "writeback")
_COUNTS = ("pipes", "threads", "channels", "tokens")
_NUMBERS = (
    "gap", "near_latency", "near_ports", "far_latency", "far_bytes", "queue", "dma_instructions",
    "barrier",
)  # fmt: skip
_SUMS = ("instructions", "waits", "posts", "bytes", "idle")
_ARRAYS = ("phase_cycles", "phase_instructions", "phase_bytes")


class _Machine(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in _COUNTS),
        *((name, ctypes.c_double) for name in _NUMBERS),
    ]


class _Sums(ctypes.Structure):
    _fields_ = [
        ("cycles", ctypes.c_double),
        *((name, ctypes.c_double * len(PHASES)) for name in _ARRAYS),
        *((name, ctypes.c_double) for name in _SUMS),
    ]


@dataclass(frozen=True)
class Timing:
    """What a machine takes for a program. bytes: moved to and from memory.

    balance: the mean over threads of the time that a thread does not wait at barriers, as a share.
    phases: name -> share of cycles, instructions a cycle, and share of memory's bytes that it uses.
    """

    cycles: float
    ipc: float
    dram_utilisation: float
    probes_per_product: float
    balance: float
    bytes: float
    instructions: float
    products: int
    spilled: int
    phases: Mapping[str, Mapping[str, float]]


def simulate(trace: Trace, machine: Machine, how: Schedule) -> Timing:
    """The time of a trace of a program with that schedule on a machine.

    Raises InternalError where something was lost on the way.
    """
    sums = _run(trace, machine, how)
    _check(trace, machine, sums)
    facts = {name: fact.value for name, fact in machine.facts().items()}
    cycles = sums.cycles
    totals = trace.totals
    products = max(1, totals["products"])
    phases = {
        name: {
            "cycles": sums.phase_cycles[i] / cycles,
            "ipc": sums.phase_instructions[i] / max(1.0, sums.phase_cycles[i]),
            "dram_utilisation": sums.phase_bytes[i]
            / max(1.0, sums.phase_cycles[i] * facts["far_bytes"]),
        }
        for i, name in enumerate(PHASES)
    }
    return Timing(
        cycles=cycles,
        ipc=sums.instructions / cycles,
        dram_utilisation=sums.bytes / (cycles * facts["far_bytes"]),
        probes_per_product=totals["probes"] / products,
        balance=1 - sums.idle / (cycles * facts["threads"]),
        bytes=sums.bytes,
        instructions=sums.instructions,
        products=totals["products"],
        spilled=trace.outcome.spilled,
        phases=phases,
    )


def _run(trace: Trace, machine: Machine, how: Schedule) -> Any:
    facts = {name: fact.value for name, fact in machine.facts().items()}
    facts |= {"tokens": how.rows == "token"}
    given = _Machine(
        **{name: int(facts[name]) for name in _COUNTS},
        **{name: facts[name] for name in _NUMBERS},
    )
    sums = _Sums()
    events = np.ascontiguousarray(trace.events)
    room = np.empty(len(events) + 1, np.int64)
    _function()(
        ctypes.byref(given), events.ctypes.data, len(events), room.ctypes.data, ctypes.byref(sums)
    )
    return sums


@cache
def _function() -> Any:
    made = ctypes.CDLL(str(library("timing"))).simulate
    pointer = ctypes.c_void_p
    made.argtypes = [pointer, pointer, ctypes.c_int64, pointer, pointer]
    made.restype = None
    return made


def _check(trace: Trace, machine: Machine, sums: Any) -> None:
    """Raise InternalError unless the events add up to what the plugin counted by itself, and no
    resource did more than it can.
    """
    copies = int((trace.events["kind"] == 3).sum())
    facts = {name: fact.value for name, fact in machine.facts().items()}
    wanted = {name: trace.totals[name] for name in ("waits", "posts", "bytes", "instructions")}
    wanted["instructions"] += copies * int(facts["dma_instructions"])
    for name, total in wanted.items():
        if getattr(sums, name) != total:
            raise InternalError(f"{name}: {getattr(sums, name):.0f} timed, {total} traced")
    bounds = {
        "instructions": sums.instructions / facts["pipes"],
        "bytes": sums.bytes / facts["far_bytes"],
        "scratchpad accesses": (sums.waits + sums.posts) / facts["near_ports"],
    }
    for name, least in bounds.items():
        if sums.cycles < least * (1 - 1e-9):
            raise InternalError(f"{sums.cycles:.0f} cycles for {name} that take {least:.0f}")
