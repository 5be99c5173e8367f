"""The analytic time of many schedules at once, which the learned model corrects.

The terms are those of the roofline (`costmodel.analytic`) with what the schedule makes of them:
the products that padding adds, sums that registers have no room for, decoding once a block, sums
that go to memory and come back, a factor for each group, operands that the nearest cache does not
hold, the trips of the innermost loop. Units of a core take turns; memory works beside them. The
rates are those of the target.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nybble.costmodel.features.facts import Facts
from nybble.costmodel.features.table import F64, Call, Columns, derived, sizes_of
from nybble.costmodel.targets.target import Target

TRIP_CYCLES, RESCALE_OPERATIONS, LOAD_OPERATIONS, CLOSE_OPERATIONS = 2.0, 48.0, 8.0, 48.0
"""Of a trip of the innermost loop; for a group's 16 sums; for a broadcast activation; for 16 sums
that are widened (assumed)."""
CLOCK = 3e9
"""Cycles a second that a trip of a loop is counted in (assumed)."""
_KIND = {"int_dot": "i8", "lut": "lookup", "lut_dot": "lookup", "bitserial": "b1"}


TERMS = (
    *("multiply", "spill", "decode", "rescale", "close", "sums", "loads", "near", "loop"),
    "memory",
)
"""What a kernel spends time on."""


@dataclass(frozen=True)
class Terms:
    """Seconds of each thing that a kernel does, for every schedule."""

    by_name: Mapping[str, F64]

    def total(self) -> F64:
        """The slower of memory and everything that cores do, which adds up."""
        memory = self.by_name["memory"]
        cores = sum((one for name, one in self.by_name.items() if name != "memory"), memory * 0.0)
        return np.maximum(memory, cores) + 1e-7

    def matrix(self) -> F64:
        """f64 [schedules, len(TERMS)]."""
        return np.stack([self.by_name[name] for name in TERMS], axis=1)

    def bottleneck(self, number: int) -> str:
        """The largest term of a schedule."""
        return max(self.by_name, key=lambda name: float(self.by_name[name][number]))


def terms(
    facts: Facts,
    call: Call,
    options: Sequence[Mapping[str, int]],
    target: Target,
) -> Terms:
    """The terms of some schedules of a kernel."""
    return terms_of(facts, derived(facts, call, sizes_of(options)), target)


def terms_of(facts: Facts, columns: Columns, target: Target) -> Terms:
    """The same of what is derived from their sizes."""
    zero = np.zeros_like(columns["operations"])

    def column(name: str) -> F64:
        return columns.get(name, zero)

    kind = _KIND.get(facts.family, "f32")
    rate = target.rate(kind).core.value
    f32 = target.rate("f32").core.value
    decode = target.rate("unpack" if kind == "i8" else "decode").core.value
    nearest = target.memory[0]
    far = column("stays") + column("streams") > nearest.size.value
    multiplies = column("multiplies") * (1.0 if kind == "lookup" else 2.0) / rate
    found: dict[str, F64] = {
        "multiply": multiplies,
        "spill": multiplies * column("spilled"),
        "decode": column("decodes") / decode,
        "rescale": column("rescales") * RESCALE_OPERATIONS / f32,
        "close": column("closes") * CLOSE_OPERATIONS / f32,
        "sums": column("sum_bytes") / nearest.core.value,
        "loads": column("activation_loads") * LOAD_OPERATIONS / f32 / 2,
        "near": far * column("streamed") / target.memory[1].core.value,
        "loop": column("trips") * TRIP_CYCLES / CLOCK,
        "memory": column("stream_bytes") / _bandwidth(columns, target, zero),
    }
    return Terms(found)


def _bandwidth(columns: Columns, target: Target, zero: F64) -> F64:
    """Bytes a second of the nearest level that holds the kernel's data."""
    footprint = columns.get("stream_bytes", zero) + columns.get("scratch_bytes", zero)
    speed = np.full(len(zero), target.memory[-1].core.value)
    for level in reversed(target.memory[:-1]):
        speed = np.where(footprint <= level.size.value, level.core.value, speed)
    return speed


def roofline(facts: Facts, call: Call, target: Target) -> float:
    """Seconds by sizes alone: operations at the peak, or bytes at full bandwidth."""
    sizes = {name: np.ones(1) for name in sizes_of([{}])}
    columns = derived(facts, call, sizes)
    rate = target.rate(_KIND.get(facts.family, "f32")).core.value
    bandwidth = _bandwidth(columns, target, np.zeros(1))
    times = columns["operations"] / rate, columns["stream_bytes"] / bandwidth
    return float(max(times[0][0], times[1][0])) + 1e-7
