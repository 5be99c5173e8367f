"""Schedules of the SpGEMM accelerator on its cycle model.

`python test/bench/spgemm_schedules.py versions [MATRIX...]`: SMASH's three versions on matrices of
16384 rows, with each assumed number of the machine changed in turn. `... auto`: the schedule that
is chosen against the three, on activations times pruned weights. Takes some minutes each.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from nybble.backends.llvm.workers import close_idle
from nybble.backends.spgemm.image import Setup
from nybble.backends.spgemm.machine import Machine, find_machine
from nybble.backends.spgemm.model.timing import simulate
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.schedule import PRESETS
from nybble.tools.bench.sparse.workloads import (
    MILD,
    UNIFORM,
    activations,
    banded,
    hub,
    pruned,
    rmat,
)
from nybble.tools.run_spgemm import AUTO, scheduled, time, traced

SCALE = 14
SQUARES = {
    "uniform": rmat(SCALE, 8 << SCALE, UNIFORM, 1),
    "rmat-mild": rmat(SCALE, 4 << SCALE, MILD, 2),
    "banded": banded(1 << SCALE, 3, 3),
    "power-law": hub(1 << SCALE, 4 << SCALE, 4),
    "uniform-16": rmat(SCALE, 16 << SCALE, UNIFORM, 5),
}
CHANGES: Mapping[str, tuple[float, float]] = {
    "pipes": (2, 8), "gap": (1, 8), "near_latency": (4, 30), "near_ports": (2, 16),
    "far_latency": (50, 400), "far_bytes": (4, 64), "channels": (1, 16), "queue": (16, 4096),
    "barrier": (16, 1024),
}  # fmt: skip
"""Assumed number -> a low and a high one in its place."""
SHARES, SPARSITIES = (0.01, 0.05, 0.20), (0.5, 0.8, 0.9, 0.95)
SHAPE = (64, 1024, 512)
"""Tokens, neurons, features."""
SEEDS = range(101, 107)


def machines() -> Iterator[tuple[str, Machine]]:
    """The machine as described, then with each number changed."""
    whole = find_machine("piuma-like")
    yield "as described", whole
    for name, values in CHANGES.items():
        for value in values:
            yield f"{name}={value:g}", whole.having(**{name: value})


def setup_of(machine: Machine) -> Setup:
    """All threads, all of the scratchpad."""
    return Setup(int(machine.threads.value), scratchpad=int(machine.scratchpad.value))


def ratios(matrix: SparseMatrix) -> dict[str, dict[str, float]]:
    """Of each machine, V2 over V1, V3 over V2 and V3 over V1 in speed, and V3's use of memory."""
    whole = find_machine("piuma-like")
    timings: dict[str, dict[str, float]] = {}
    use: dict[str, float] = {}
    for name in PRESETS:
        _, how = scheduled(name, matrix, matrix, whole, setup_of(whole))
        events = traced(matrix, matrix, how, whole)
        for label, machine in machines():
            timing = simulate(events, machine, how)
            timings.setdefault(label, {})[name] = timing.cycles
            use[label] = timing.dram_utilisation  # of the last one, V3
    return {
        label: {
            "v1": one["v1"], "v2/v1": one["v1"] / one["v2"], "v3/v2": one["v2"] / one["v3"],
            "v3/v1": one["v1"] / one["v3"], "memory": use[label],
        }
        for label, one in timings.items()
    }  # fmt: skip


def versions(names: Sequence[str]) -> int:
    """Print each matrix's ratios as described and their ranges; 1 if one is out of order."""
    least = float("inf")
    for name in names or SQUARES:
        found = ratios(SQUARES[name])
        for label, one in found.items():
            told = " ".join(f"{key} {value:.3g}" for key, value in one.items())
            sys.stdout.write(f"{name:10} {label:18} {told}\n")
        for key in ("v2/v1", "v3/v2", "v3/v1"):
            values = [one[key] for one in found.values()]
            sys.stdout.write(f"{name:10} {key}: {min(values):.2f} to {max(values):.2f}\n")
            least = min(least, *values)
        sys.stdout.flush()
    return 0 if least > 1 else 1


def auto() -> int:
    """Print each case, and the geometric mean over V3 and the worst over the best version.

    V1, which takes three to nine times as long as V2, runs on the smallest cases of the first seed.
    """
    machine = find_machine("piuma-like")
    tokens, neurons, features = SHAPE
    over_v3: list[float] = []
    over_best: list[float] = []
    for share, sparsity, seed in product(SHARES, SPARSITIES, SEEDS):
        lhs = activations(tokens, neurons, share, seed)
        rhs = pruned(neurons, features, sparsity, seed + 1000)
        cycles: dict[str, float] = {}
        chosen = ""
        slow = () if share > SHARES[0] or seed > SEEDS[0] else ("v1",)
        for name in (*slow, "v2", "v3", AUTO):
            label, how = scheduled(name, lhs, rhs, machine, setup_of(machine))
            chosen = label if name == AUTO else chosen
            cycles[name] = time(lhs, rhs, how, machine).cycles
        over_v3.append(cycles["v3"] / cycles[AUTO])
        over_best.append(min(cycles[name] for name in cycles if name != AUTO) / cycles[AUTO])
        told = " ".join(f"{name} {value / 1e3:.0f}" for name, value in cycles.items())
        sys.stdout.write(
            f"x{share:.0%} w{sparsity:.0%} seed {seed}: {told} kcycles, {chosen},"
            f" {over_v3[-1]:.2f} of v3, {over_best[-1]:.2f} of the best\n"
        )
        sys.stdout.flush()
    found = {
        "cases": len(over_v3), "geomean_over_v3": float(np.exp(np.mean(np.log(over_v3)))),
        "geomean_over_best": float(np.exp(np.mean(np.log(over_best)))),
        "worst_over_best": min(over_best),
    }  # fmt: skip
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def main() -> int:
    """The exit status."""
    command, *names = sys.argv[1:] or [""]
    if command not in ("versions", "auto") or not {*names} <= {*SQUARES}:
        sys.stderr.write(f"accepted: auto, versions [{' '.join(SQUARES)}]\n")
        return 2
    try:
        return auto() if command == "auto" else versions(names)
    finally:
        close_idle()


if __name__ == "__main__":
    sys.exit(main())
