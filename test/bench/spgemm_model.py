"""The cycle model of the SpGEMM accelerator against rvsim, where both can be the same machine.

Run as `python test/bench/spgemm_model.py`; takes two minutes, and ends with status 1 unless all
points are CLOSE and their rank correlation is LEAST. Both have harts in order on memory without
data caches. The only number that is taken from rvsim's runs, the cycles of an instruction, comes
from a matrix that is none of those compared.
"""

import json
import sys

import numpy as np

from nybble.backends.llvm.workers import close_idle
from nybble.backends.spgemm.engines import rvsim
from nybble.backends.spgemm.model.alike import Run, flat_trace, gap_of, machine_alike
from nybble.backends.spgemm.model.timing import simulate
from nybble.backends.spgemm.model.trace import Trace
from nybble.backends.spgemm.program import compiled
from nybble.backends.spgemm.run import ENGINES, PLAIN, Job, image_of
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.schedule import PRESETS, Schedule
from nybble.tools.bench.sparse.workloads import UNIFORM, banded, hub, rmat

PEER = rvsim.Machine(cached=False)
MATRICES = {
    "uniform": rmat(5, 160, UNIFORM, 11),
    "hub": hub(32, 100, 12),
    "banded": banded(30, 3, 13),
}
CALIBRATION = rmat(5, 120, UNIFORM, 9)
HARTS = (1, 4, 8)
BITS = 8
CLOSE, LEAST = 0.2, 0.9


def flat(matrix: SparseMatrix, how: Schedule) -> Trace:
    """What one hart does for the square of a matrix."""
    image = image_of(Job(matrix, matrix, how), ENGINES["qemu"])
    return flat_trace(compiled(how, "i64", PLAIN), image)


def cycles_of(matrix: SparseMatrix, how: Schedule, harts: int) -> float:
    """What rvsim takes for the square of a matrix."""
    image = image_of(Job(matrix, matrix, how, harts), ENGINES["rvsim"])
    outcome = rvsim.run(compiled(how, "i64", PLAIN), image, harts, PEER)
    return outcome.figures["cycles"]


def ones(matrix: SparseMatrix) -> SparseMatrix:
    """The same places, as i64."""
    return matrix.with_values(np.ones(matrix.nnz, np.int64))


def main() -> int:
    """Print a line for each point and a summary; the exit status."""
    schedules = {name: how.with_bits(BITS) for name, how in PRESETS.items()}
    other = ones(CALIBRATION)
    gap = gap_of(
        [Run(flat(other, how), cycles_of(other, how, 1)) for how in schedules.values()], PEER
    )
    theirs: list[float] = []
    ours: list[float] = []
    for label, drawn in MATRICES.items():
        matrix = ones(drawn)
        for name, how in schedules.items():
            traced = flat(matrix, how)
            for harts in HARTS:
                theirs.append(cycles_of(matrix, how, harts))
                ours.append(simulate(traced, machine_alike(PEER, harts, gap), how).cycles)
                told = f"rvsim {theirs[-1]:8.0f} model {ours[-1]:8.0f}"
                ratio = ours[-1] / theirs[-1]
                sys.stdout.write(f"{label:8} {name} {harts} harts: {told} ratio {ratio:.3f}\n")
                sys.stdout.flush()
    close_idle()
    errors = np.abs(np.array(ours) / np.array(theirs) - 1)
    places = [np.argsort(np.argsort(one)) for one in (theirs, ours)]
    rank = float(np.corrcoef(*places)[0, 1])  # Spearman's
    found = {
        "points": len(errors), "within_20_percent": int((errors <= CLOSE).sum()),
        "median_error": float(np.median(errors)), "worst_error": float(errors.max()),
        "spearman": rank, "gap": gap,
    }  # fmt: skip
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if rank >= LEAST and errors.max() <= CLOSE else 1


if __name__ == "__main__":
    sys.exit(main())
