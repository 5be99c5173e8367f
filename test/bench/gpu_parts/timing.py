"""Times of GPU work: CUDA graphs replayed by turns, with the L2 cache cold; and machine probes."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch

L2_TURNS = 4
"""Copies of what is read are as many as make up this many L2 caches: none is found in the cache."""
MICROSECONDS = 1e3


@dataclass
class Contender:
    """One way to do a case's work. run(i) launches it once on copy i of what it reads."""

    name: str
    run: Callable[[int], None]
    result: Callable[[], torch.Tensor] | None = None
    copies: int = 1
    bytes: int = 0
    flops: int = 0
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Times:
    """Microseconds of one launch: rotating over copies, and alone after the L2 was overwritten."""

    best: float
    median: float
    flushed_best: float
    flushed_median: float


def copies_for(size: int, l2: int) -> int:
    """How many copies of `size` bytes make every launch find its own cold."""
    return max(2, -(-L2_TURNS * l2 // max(size, 1)) + 1)


def _captured(run: Callable[[int], None], launches: Sequence[int]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for copy in launches:
            run(copy)
    return graph


def _once(contender: Contender) -> float:
    """About how many microseconds one launch takes."""
    contender.run(0)
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for i in range(3):
        contender.run(i % contender.copies)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) * MICROSECONDS / 3


def measure(
    contenders: Sequence[Contender], rounds: int, enough: float = 400.0
) -> dict[str, Times]:
    """Times of each by name; they take turns, so that a change of clocks hits all of them.

    A graph holds whole turns over the copies, for `enough` microseconds or more.
    """
    graphs: dict[str, tuple[torch.cuda.CUDAGraph, torch.cuda.CUDAGraph, int]] = {}
    for one in contenders:
        turns = max(1, min(round(enough / (_once(one) * one.copies)), 400 // one.copies))
        order = [*range(one.copies)] * turns
        graphs[one.name] = _captured(one.run, order), _captured(one.run, [0]), len(order)
    rotated = {one.name: list[float]() for one in contenders}
    for turn in range(rounds + 1):
        for name, (graph, _, launches) in graphs.items():
            took = _timed(graph.replay) / launches
            if turn:  # the first one warms up
                rotated[name].append(took)
    flushed = _flushed({name: made[1] for name, made in graphs.items()}, rounds)
    return {
        name: Times(min(times), median(times), min(flushed[name]), median(flushed[name]))
        for name, times in rotated.items()
    }


def _flushed(graphs: dict[str, torch.cuda.CUDAGraph], rounds: int) -> dict[str, list[float]]:
    scratch = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    times = {name: list[float]() for name in graphs}
    for _ in range(max(3, rounds // 2)):
        for name, graph in graphs.items():
            scratch.zero_()
            times[name].append(_timed(graph.replay))
    return times


def _timed(action: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    action()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) * MICROSECONDS


def probe_bandwidth() -> dict[str, float]:
    """GB/s of a copy, counting bytes read and written, and of a read; TFLOP/s of f16 products."""
    size = 2 << 30
    source = torch.empty(size, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    words = source.view(torch.int32)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))

    def best(action: Callable[[], object]) -> float:
        action()
        return min(_timed(action) for _ in range(8)) / 1e6

    return {
        "copy_gb_s": 2 * size / best(lambda: target.copy_(source)) / 1e9,
        "read_gb_s": size / best(lambda: words.amax()) / 1e9,
        "matmul_f16_tflop_s": 2 * 8192**3 / best(lambda: a @ b) / 1e12,
    }


def describe() -> dict[str, object]:
    """The GPU, its driver, clocks and libraries, as found; nothing is set."""
    fields = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"
    said: dict[str, object] = {}
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        said |= zip(fields.split(","), asked.stdout.strip().split(", "), strict=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        said["nvidia-smi"] = str(error)
    properties = torch.cuda.get_device_properties(0)
    return said | {
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": properties.L2_cache_size,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
