"""Random products of sparse matrices for verification: shapes, patterns, schedules and tables.

Everything follows from a seed and the number of a case.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.backends.spgemm.windows import Filling
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.schedule import PRESETS, Schedule
from nybble.passes.convert_spgemm_to_program import MASKED

Pattern = NDArray[np.bool_]
Random = np.random.Generator


def _uniform(random: Random, rows: int, cols: int) -> Pattern:
    return random.random((rows, cols)) < random.choice([0.05, 0.2, 0.5])


def _skewed(random: Random, rows: int, cols: int) -> Pattern:
    weights = np.outer(1 / np.arange(1, rows + 1), 1 / np.arange(1, cols + 1))
    return random.random((rows, cols)) < weights * 4


def _banded(random: Random, rows: int, cols: int) -> Pattern:
    width = int(random.integers(0, 4))
    return np.abs(np.arange(rows)[:, None] - np.arange(cols)[None]) <= width


def _hub(random: Random, rows: int, cols: int) -> Pattern:
    made = random.random((rows, cols)) < 0.05
    made[random.integers(rows)] = True
    made[:, random.integers(cols)] = True
    return made


def _gaps(random: Random, rows: int, cols: int) -> Pattern:
    kept = random.random(rows) < 0.3
    return (random.random((rows, cols)) < 0.4) & kept[:, None]


def _blocks(random: Random, rows: int, cols: int) -> Pattern:
    side = int(random.integers(1, 5))
    coarse = random.random((-(-rows // side), -(-cols // side))) < 0.3
    return np.kron(coarse, np.ones((side, side), np.bool_))[:rows, :cols]


def _full(random: Random, rows: int, cols: int) -> Pattern:
    return np.ones((rows, cols), np.bool_)


def _empty(random: Random, rows: int, cols: int) -> Pattern:
    return np.zeros((rows, cols), np.bool_)


PATTERNS: Mapping[str, Callable[[Random, int, int], Pattern]] = {
    "uniform": _uniform,
    "skewed": _skewed,
    "banded": _banded,
    "hub": _hub,
    "gaps": _gaps,
    "blocks": _blocks,
    "full": _full,
    "empty": _empty,
}
"""Name -> where a matrix has entries."""
DENSE = Schedule("token", "low", "dense", "loop")
SCHEDULES = (
    *PRESETS.values(),
    DENSE,
    Schedule("static", "low", "fragments", "loop"),
    Schedule(transfer="dma"),
    Schedule(accumulator=MASKED, transfer="dma"),
    Schedule("static", accumulator=MASKED),
)
ELEMENTS = {"i64": np.int64, "f64": np.float64, "f32": np.float32}
LARGE, SMALL = 48, 10
"""Largest side of a matrix for engines that are fast, and for others."""
FEW, USUAL, MANY = 4, 6, 9
"""Bits of a table: so few that it overflows, as usual, and more than anything fills."""
OVERFULL = Filling(32.0, 5)
"""Tables and fragments that products do not fit."""


@dataclass(frozen=True)
class SparseCase:
    """A product, how it is computed, how full its tables may get, and where it is wanted."""

    number: int
    patterns: tuple[str, str]
    lhs: SparseMatrix
    rhs: SparseMatrix
    how: Schedule
    filling: Filling
    mask: SparseMatrix | None = None

    def report(self) -> dict[str, object]:
        """The case in the words of the command's report."""
        rows, depth = self.lhs.shape
        return {
            "case": self.number, "patterns": list(self.patterns),
            "shape": [rows, depth, self.rhs.shape[1]], "element": self.lhs.element.name,
            "schedule": f"{self.how.rows},{self.how.hash},{self.how.accumulator},"
            f"{self.how.transfer}", "bits": self.how.bits,
            "mask": None if self.mask is None else self.mask.nnz,
            "load": self.filling.load, "entries": self.filling.entries,
        }  # fmt: skip


def draw(seed: int, number: int, large: bool) -> SparseCase:
    """The case of a number; large: for an engine that is fast."""
    random = np.random.default_rng([seed, number, int(large)])
    side = LARGE if large else SMALL
    rows, depth, cols = (int(random.integers(1, side + 1)) for _ in range(3))
    names = [*PATTERNS]
    # Each pattern meets each schedule, also where there are as many of both.
    left = names[(number + number // len(SCHEDULES)) % len(names)]
    right = str(random.choice(names[:-1]))
    element = [*ELEMENTS][number % len(ELEMENTS)]
    lhs = _matrix(random, PATTERNS[left](random, rows, depth), element)
    rhs = _matrix(random, PATTERNS[right](random, depth, cols), element)
    how = SCHEDULES[number % len(SCHEDULES)]
    bits = int(random.choice([FEW, USUAL, MANY])) if large else int(random.choice([FEW, USUAL]))
    filling = OVERFULL if random.random() < 0.3 else Filling()
    mask = None
    if how.accumulator == MASKED:
        pattern = PATTERNS[str(random.choice(names))](random, rows, cols)
        mask = _matrix(random, pattern, element)
    return SparseCase(number, (left, right), lhs, rhs, how.with_bits(bits), filling, mask)


def _matrix(random: Random, pattern: Pattern, element: str) -> SparseMatrix:
    """Values of any sign and size: sums of i64 wrap around, those of floats lose digits."""
    rows, cols = np.nonzero(pattern)
    dtype = ELEMENTS[element]
    values: NDArray[Any]
    if element == "i64":
        values = random.integers(-(2**63), 2**63 - 1, len(rows), np.int64)
    else:
        values = (random.normal(size=len(rows)) * 10.0 ** random.integers(-6, 7, len(rows))).astype(
            dtype
        )
    indptr = np.concatenate(([0], np.cumsum(pattern.sum(axis=1)))).astype(np.int32)
    shape = (pattern.shape[0], pattern.shape[1])
    return SparseMatrix(shape, indptr, cols.astype(np.int32), values).check()
