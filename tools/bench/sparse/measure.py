"""The rows of `nybble bench spgemm`.

Rows of one thread alone are timed by the processor time of the process, which neighbours on the
machine do not change much; where a row has several threads, all are timed by the clock. All
contestants of a workload, on every number of threads, run in turn.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from math import exp, log
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from nybble.backends.cpu.spgemm import product, routing
from nybble.backends.cpu.spgemm.product import Setting
from nybble.backends.cpu.spgemm.routing import Right, Route
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.semiring import SEMIRINGS
from nybble.frontend.sparse_files import to_scipy
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.machine import describe_host
from nybble.tools.bench.report import Column, Report, Row
from nybble.tools.bench.rounds import Contestant, Schedule, Timing, interleave
from nybble.tools.bench.sparse.peers import PEERS
from nybble.tools.bench.sparse.workloads import Problem, workloads

PLUS_TIMES = SEMIRINGS["plus_times"]
SIZES = ("full", "small")
SPINNING = 0.25
"""Seconds: threads of Intel's OpenMP wait for 200 ms after a region before they sleep."""
Key = tuple[int, str]
"""Number of threads, and the name of a peer or a route."""
COLUMNS = (
    Column("workload", "workload"),
    Column("threads", "threads"),
    Column("products", "products"),
    Column("route", "route"),
    Column("ours us", "ours_us", "{:.0f}"),
    Column("best peer", "best_peer"),
    Column("peer us", "peer_us", "{:.0f}"),
    Column("speedup", "speedup_vs_best", "{:.2f}"),
    Column("vs one", "speedup_vs_one", "{:.2f}"),
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
    options: SparseOptions,
    progress: Callable[[str], None] = lambda _: None,
    keep: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Measure every workload on every number of threads; missing peers are noted.

    keep: gets the report so far after each workload.
    """
    table = workloads(options.size)
    notes: dict[str, None] = {}
    rows: list[Row] = []
    for name in options.names or table:
        progress(name)
        with ProcessPoolExecutor(1, get_context("fork")) as pool:
            found, noted = pool.submit(_of_workload, name, options).result()
        rows += [{"workload": name, **row} for row in found]
        notes |= dict.fromkeys(noted)
        keep(_report(rows, notes, options))
    return _report(rows, notes, options)


def _report(rows: Sequence[Row], notes: Mapping[str, None], options: SparseOptions) -> Report:
    facts = {
        "size": options.size,
        "rounds": options.schedule.rounds,
        "geomean": {
            str(threads): _geomean(
                [row["speedup_vs_best"] for row in rows if row["threads"] == threads]
            )
            for threads in options.threads
        },
        "regret": _mean([row["regret"] for row in rows]),
        "unit": f"us, minimum of the rounds, of {_clock(options.threads)[0]}",
    }
    return Report("spgemm", describe_host(), [*rows], list(notes), facts)


def _of_workload(name: str, options: SparseOptions) -> tuple[list[Row], list[str]]:
    """Rows and notes, made in a process of their own: torch keeps the memory of its products."""
    notes: list[str] = []
    problem = workloads(options.size)[name].make(options.seed)
    return measured(problem, options, notes.append), notes


def measured(problem: Problem, options: SparseOptions, note: Callable[[str], object]) -> list[Row]:
    """The rows of one problem, one for each number of threads; all contestants run in turn."""
    right = Right.prepared(problem.b) if problem.weight else Right(problem.b)
    route = routing.choose(problem.a, right, PLUS_TIMES) if problem.weight else Route.SPGEMM
    runs: dict[Key, Callable[[], object]] = {}
    for threads in options.threads:
        setting = Setting(threads, options.folder)
        for name in options.peers:
            try:
                runs[threads, name] = PEERS[name](problem.a, problem.b, threads)
            except UnavailableError as reason:
                note(f"{name}: {reason}")
        for one, run in _routes(problem, right, setting).items():
            runs[threads, one] = run
    clock = _clock(options.threads)[1]
    contestants = {f"{name} {threads}": _timed(run, clock) for (threads, name), run in runs.items()}
    timings = interleave(contestants, _rested(options))
    of_key = {key: timings[f"{key[1]} {key[0]}"] for key in runs}
    rows = [_row(problem, threads, route, of_key) for threads in options.threads]
    single = next((row["ours_us"] for row in rows if row["threads"] == 1), None)
    for row in rows:
        row["speedup_vs_one"] = single / row["ours_us"] if single else None
        result, peak = _peak(runs[row["threads"], route])
        row |= {"memory": _memory(problem, result, peak), "error": _error(problem, result)}
    return rows


def _row(problem: Problem, threads: int, route: Route, timings: Mapping[Key, Timing]) -> Row:
    """The row without what is not a time."""
    here = {name: timing for (count, name), timing in timings.items() if count == threads}
    ours = {str(one): here[one].best * 1e6 for one in Route if one in here}
    peers = {name: timing.best * 1e6 for name, timing in here.items() if name not in ours}
    best = min(peers, key=lambda name: peers[name], default=None)
    ours_us = ours[route]
    return {
        "threads": threads,
        "products": problem.products,
        "flops": 2 * problem.products,
        "ours_us": ours_us,
        "ours_us_median": here[route].median * 1e6,
        "peers": peers,
        "best_peer": best,
        "peer_us": peers[best] if best else None,
        "speedup_vs_best": peers[best] / ours_us if best else None,
        "route": str(route),
        "routes": ours,
        "regret": ours_us / min(ours.values()) - 1 if problem.weight else None,
    }


def _clock(threads: Sequence[int]) -> tuple[str, Callable[[], float]]:
    """What is measured with, one for all rows, and its name."""
    if max(threads) == 1:
        return "processor time", time.process_time
    return "the clock", time.perf_counter


def _rested(options: SparseOptions) -> Schedule:
    """The turns; after one of several threads, those of a peer may spin for a while."""
    if max(options.threads) == 1:
        return options.schedule
    return replace(options.schedule, settle=max(options.schedule.settle, SPINNING))


def _routes(problem: Problem, right: Right, setting: Setting) -> dict[Route, Callable[[], object]]:
    if not problem.weight:
        return {Route.SPGEMM: lambda: product.matmul(problem.a, problem.b, PLUS_TIMES, setting)}

    def way(route: Route) -> Callable[[], object]:
        return lambda: routing.to_dense_product(problem.a, right, PLUS_TIMES, setting, route)

    return {route: way(route) for route in Route}


def _timed(run: Callable[[], object], clock: Callable[[], float]) -> Contestant:
    def once() -> float:
        start = clock()
        held = run()
        taken = clock() - start
        del held
        gc.collect()  # GraphBLAS's results are in cycles
        return taken

    return once


def _peak(run: Callable[[], Any]) -> tuple[Any, int | None]:
    """What a call gives, and by how many bytes the resident memory grew at most; None off Linux.

    proc_pid_clear_refs(5): 5 resets the peak to what is resident.
    """
    reset = Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")
        before = _status("VmRSS")
        result = run()
        return result, _status("VmHWM") - before
    except OSError:
        return run(), None


def _status(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def _memory(problem: Problem, result: Any, grown: int | None) -> float | None:
    """Operands and what the call took at most, over operands and result."""
    size = result.bytes if isinstance(result, SparseMatrix) else result.nbytes
    operands = problem.a.bytes + (0 if problem.b is problem.a else problem.b.bytes)
    return None if grown is None else (operands + grown) / (operands + size)


def _error(problem: Problem, result: Any) -> float:
    """The largest difference from SciPy's product."""
    wanted = to_scipy(problem.a) @ to_scipy(problem.b)
    if isinstance(result, SparseMatrix):
        difference = abs(to_scipy(result) - wanted)
        return float(difference.max()) if difference.nnz else 0.0
    return float(np.abs(result - wanted.toarray()).max(initial=0.0))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _geomean(ratios: Sequence[float | None]) -> float | None:
    known = [log(ratio) for ratio in ratios if ratio]
    return exp(sum(known) / len(known)) if known else None
