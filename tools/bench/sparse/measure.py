"""The rows of `nybble bench spgemm`.

One thread is timed by the processor time of the process, which neighbours on the machine do not
change much, several by the clock. All contestants of a row run in turn.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from nybble.backends.cpu.spgemm import product, routing
from nybble.backends.cpu.spgemm.product import Setting
from nybble.backends.cpu.spgemm.routing import Right, Route
from nybble.dialects.spgemm.elements import Values
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.semiring import SEMIRINGS
from nybble.frontend.sparse_files import to_scipy
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.machine import describe_host
from nybble.tools.bench.report import Column, Report, Row
from nybble.tools.bench.rounds import Contestant, Schedule, interleave
from nybble.tools.bench.sparse.peers import PEERS
from nybble.tools.bench.sparse.workloads import Problem, workloads

OURS = "ours"
PLUS_TIMES = SEMIRINGS["plus_times"]
SIZES = ("full", "small")
COLUMNS = (
    Column("workload", "workload"),
    Column("threads", "threads"),
    Column("products", "products"),
    Column("route", "route"),
    Column("ours us", "ours_us", "{:.0f}"),
    Column("best peer", "best_peer"),
    Column("peer us", "peer_us", "{:.0f}"),
    Column("speedup", "speedup_vs_best", "{:.2f}"),
    Column("regret", "regret", "{:.0%}"),
    Column("memory", "memory", "{:.2f}"),
)


@dataclass(frozen=True)
class SparseOptions:
    """names: of workloads, or none for all; size: of SIZES; seed: of the matrices.

    folder: a cache of compiled kernels.
    """

    names: tuple[str, ...]
    threads: tuple[int, ...]
    peers: tuple[str, ...]
    size: str
    seed: int
    schedule: Schedule
    folder: Path | None = None


def bench_sparse(
    options: SparseOptions, progress: Callable[[str], None] = lambda _: None
) -> Report:
    """Measure every workload on every number of threads; missing peers are noted."""
    table = workloads(options.size)
    chosen = [table[name] for name in options.names or table]
    notes: dict[str, None] = {}
    rows: list[Row] = []
    for workload in chosen:
        problem = workload.make(options.seed)
        for threads in options.threads:
            progress(f"{workload.name}, {threads} threads")
            row = measured(problem, threads, options, lambda note: notes.setdefault(note))
            rows.append({"workload": workload.name, **row})
    facts = {
        "size": options.size,
        "rounds": options.schedule.rounds,
        "geomean": _geomean([row["speedup_vs_best"] for row in rows]),
        "unit": "us, minimum of the rounds: of processor time on one thread, of the clock on more",
    }
    return Report("spgemm", describe_host(), rows, list(notes), facts)


def measured(
    problem: Problem, threads: int, options: SparseOptions, note: Callable[[str], object]
) -> Row:
    """The row of one problem."""
    setting = Setting(threads, options.folder)
    runs: dict[str, Callable[[], object]] = {}
    for name in options.peers:
        try:
            runs[name] = PEERS[name](problem.a, problem.b, threads)
        except UnavailableError as reason:
            note(f"{name}: {reason}")
    ours = _routes(problem, setting) if problem.weight else {}
    right = Right.prepared(problem.b) if problem.weight else Right(problem.b)
    route = routing.choose(problem.a, right, PLUS_TIMES) if problem.weight else Route.SPGEMM
    if not problem.weight:
        ours[Route.SPGEMM] = lambda: product.matmul(problem.a, problem.b, PLUS_TIMES, setting)
    contestants = {name: _timed(run, threads) for name, run in runs.items()}
    contestants |= {f"{OURS} {one}": _timed(run, threads) for one, run in ours.items()}
    timings = interleave(contestants, options.schedule)
    micro = {name: timing.best * 1e6 for name, timing in timings.items()}
    peers = {name: micro[name] for name in runs}
    best = min(peers, key=lambda name: peers[name], default=None)
    of_routes = {str(one): micro[f"{OURS} {one}"] for one in ours}
    ours_us = of_routes[str(route)]
    result = ours[route]()
    return {
        "threads": threads,
        "products": problem.products,
        "ours_us": ours_us,
        "ours_us_median": timings[f"{OURS} {route}"].median * 1e6,
        "peers": peers,
        "best_peer": best,
        "peer_us": peers[best] if best else None,
        "speedup_vs_best": peers[best] / ours_us if best else None,
        "route": str(route),
        "routes": of_routes,
        "regret": ours_us / min(of_routes.values()) - 1 if problem.weight else None,
        "memory": _memory(problem, result),
        "error": _error(problem, result),
    }


def _routes(problem: Problem, setting: Setting) -> dict[Route, Callable[[], object]]:
    right = Right.prepared(problem.b)

    def way(route: Route) -> Callable[[], object]:
        return lambda: routing.to_dense_product(problem.a, right, PLUS_TIMES, setting, route)

    return {route: way(route) for route in Route}


def _timed(run: Callable[[], object], threads: int) -> Contestant:
    clock = time.process_time if threads == 1 else time.perf_counter

    def once() -> float:
        start = clock()
        held = run()
        taken = clock() - start
        del held
        return taken

    return once


def _memory(problem: Problem, result: Any) -> float:
    """Bytes of the result over those of operands and result: what is left is the threads' own."""
    size = result.bytes if isinstance(result, SparseMatrix) else result.nbytes
    return size / (problem.a.bytes + problem.b.bytes + size)


def _error(problem: Problem, result: SparseMatrix | Values) -> float:
    """The largest difference from SciPy's product."""
    wanted = to_scipy(problem.a) @ to_scipy(problem.b)
    if isinstance(result, SparseMatrix):
        difference = abs(to_scipy(result) - wanted)
        return float(difference.max()) if difference.nnz else 0.0
    return float(np.abs(result - wanted.toarray()).max(initial=0.0))


def _geomean(ratios: Sequence[float | None]) -> float | None:
    known = [log(ratio) for ratio in ratios if ratio]
    return exp(sum(known) / len(known)) if known else None
