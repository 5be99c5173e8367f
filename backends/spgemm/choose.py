"""Which schedule a product gets: a cost model of the three accumulators, from what rows take.

Cycles are those of a core's pipelines together, from instructions of the generated code; what
memory moves bounds them from below. Fragments without DMA are no candidate: where they are the
best, V3 is within some hundredths.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nybble.backends.spgemm.image import Setup, most_bits
from nybble.backends.spgemm.machine import Machine
from nybble.backends.spgemm.windows import padded, plan, products_of_rows
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.schedule import PRESETS, Schedule

CANDIDATES: Mapping[str, Schedule] = {
    **PRESETS,
    "dense": Schedule("token", "low", "dense", "loop"),
    "dense-dma": Schedule("token", "low", "dense", "dma"),
}
"""Name -> schedule whose bits are still to be chosen."""


@dataclass(frozen=True)
class Work:
    """Instructions of a program for each thing it does.

    product: a product that finds its place; entry: more for one that makes an entry, written back;
    slot: clearing a place, or looking at it when a window is written back. left: an entry of the
    left matrix.
    """

    product: float
    entry: float
    slot: float
    left: float


WORK: Mapping[tuple[str, str], Work] = {
    ("table", "loop"): Work(32.7, 13.6, 5.7, 19.5),
    ("fragments", "dma"): Work(23.0, 1.2, 0, 65.7),
    ("dense", "loop"): Work(16.0, 9.3, 2.95, 17.8),
    ("dense", "dma"): Work(16.0, 9.3, 2.95, 52.4),
}
"""Accumulator and transfer of a candidate -> its work: least squares over traces of activations
times pruned weights, which it tells to 1%."""
PROBE = 10.0
CLUSTERED = 12.0
"""Probes of a product where the high-order bits of columns are hashed, at least."""


@dataclass(frozen=True)
class Choice:
    """A schedule, its name, and the cycles that each candidate was given."""

    name: str
    how: Schedule
    cycles: Mapping[str, float]


def sized(how: Schedule, shape: tuple[int, int], width: int, setup: Setup) -> Schedule:
    """The schedule with the largest accumulator that fits, or that a result of that shape needs."""
    rows, columns = shape
    needed = {"table": 2 * rows * columns, "dense": rows * padded(columns)}
    bits = max(4, (needed.get(how.accumulator, columns) - 1).bit_length())
    return how.with_bits(min(bits, most_bits(how, width, setup)))


def choose(lhs: SparseMatrix, rhs: SparseMatrix, machine: Machine, setup: Setup) -> Choice:
    """The candidate with the fewest cycles by the cost model."""
    width, shape = lhs.values.dtype.itemsize, (lhs.shape[0], rhs.shape[1])
    made = {name: sized(how, shape, width, setup) for name, how in CANDIDATES.items()}
    cycles = {name: estimate(lhs, rhs, how, machine) for name, how in made.items()}
    best = min(cycles, key=cycles.__getitem__)
    return Choice(best, made[best], cycles)


def estimate(lhs: SparseMatrix, rhs: SparseMatrix, how: Schedule, machine: Machine) -> float:
    """Cycles that a core takes for a product: its instructions, or its bytes."""
    products = products_of_rows(lhs, rhs)
    total, columns = float(products.sum()), max(1, rhs.shape[1])
    entries = float((columns * -np.expm1(products * np.log1p(-1 / max(2, columns)))).sum())
    windows = plan(lhs, rhs, how).rows
    passes = float(((windows[:, 1] - windows[:, 0]).sum()) / max(1, lhs.shape[0]))
    work = WORK[how.accumulator, how.transfer]
    slots = 0.0
    if how.accumulator == "table":
        slots = float(len(windows) + 1) * how.slots
    elif how.accumulator == "dense":
        slots = float(lhs.shape[0]) * columns + how.slots
    walked = total * (passes - 1) * 8.0  # products outside of a window are looked at all the same
    instructions = total * work.product + entries * work.entry + slots * work.slot
    instructions += lhs.nnz * passes * work.left + walked
    if how.hash == "high" and how.accumulator == "table":
        instructions += total * PROBE * CLUSTERED
    facts = machine.facts()
    moved = total * passes * 12 + entries * 16
    return max(instructions / facts["pipes"].value, moved / facts["far_bytes"].value)
