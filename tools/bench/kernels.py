"""`nybble bench kernels`: products of ours and of peers, in turn, with the machine's roofs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product as combinations
from math import ceil

from nybble.dialects.errors import NybbleError
from nybble.tools.bench.data import Sample, make_sample
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.machine import Host, describe_host
from nybble.tools.bench.options import COLD, KernelOptions, Shape
from nybble.tools.bench.ours_kernel import OurKernel
from nybble.tools.bench.peers.api import REGISTRY, KernelRunner, Note, Peer
from nybble.tools.bench.probes.probes import Probe, peak_probes, rates, read_probes
from nybble.tools.bench.probes.team import Team
from nybble.tools.bench.report import Column, Report, Row
from nybble.tools.bench.roofs import Work, roof
from nybble.tools.bench.rounds import Contestant, Rotation, Timing, interleave

COLUMNS = (
    Column("format", "format"),
    Column("rows", "rows"),
    Column("cols", "cols"),
    Column("n", "n"),
    Column("cache", "cache"),
    Column("threads", "threads"),
    Column("activations", "activations"),
    Column("dataflow", "dataflow"),
    Column("ours us", "ours_us", "{:.1f}"),
    Column("best peer us", "best_peer_us", "{:.1f}"),
    Column("peer", "best_peer"),
    Column("speedup", "speedup", "{:.2f}"),
    Column("roof", "roof"),
    Column("of roof", "roof_fraction", "{:.0%}"),
    Column("nmse", "nmse", "{:.1e}"),
)
_OURS = "ours"
_RUN_SECONDS = 5e-3  # what a hot run should take at least: the first product finds a cold cache
_ASSUMED = Work(20e9, 400e9)  # bytes and operations a second, to guess how long a product takes
_MOST_REPEATS = 64
_HOPELESS = 2.0  # times the best: no noise turns that around


@dataclass(frozen=True)
class Case:
    """One combination to measure."""

    format: str
    shape: Shape
    n: int
    cache: str
    threads: int
    activations: str = "i8"

    def __str__(self) -> str:
        """For people."""
        how = f"{self.cache}, {self.threads} threads, {self.activations}"
        return f"{self.format} {self.shape} n={self.n} {how}"


def cases(options: KernelOptions) -> Iterator[Case]:
    """All combinations, in the order of the options."""
    every = combinations(
        options.formats,
        options.shapes,
        options.n,
        options.caches,
        options.threads,
        options.activations,
    )
    for one in every:
        yield Case(*one)


def rotation_of(case: Case, sample: Sample, cold_bytes: int) -> Rotation:
    """Hot: one copy of the weights, several times a run. Cold: as many copies as fill the room."""
    if case.cache == COLD:
        return Rotation(copies=max(2, ceil(cold_bytes / sample.weight_bytes)))
    seconds = sample.weight_bytes / _ASSUMED.bytes + sample.operations / _ASSUMED.operations
    return Rotation(repeats=max(1, min(_MOST_REPEATS, ceil(_RUN_SECONDS / seconds))))


def qualified(runners: Mapping[str, KernelRunner]) -> dict[str, KernelRunner]:
    """Ours, and of each peer the variants that a first look does not rule out as slow.

    Every variant runs twice for that; its better time counts.
    """
    seconds = {name: min(one.seconds(), one.seconds()) for name, one in runners.items()}
    best: dict[str, float] = {}
    for name, taken in seconds.items():
        peer = name.rpartition("/")[0]
        best[peer] = min(taken, best.get(peer, taken))
    chance = {name: _HOPELESS * best[name.rpartition("/")[0]] for name in runners}
    return {name: one for name, one in runners.items() if seconds[name] <= chance[name]}


def bench_kernels(options: KernelOptions, progress: Note = lambda _: None) -> Report:
    """Measures every combination; what cannot be measured is noted and left out.

    Raises NybbleError for formats and peers that do not exist, before anything is measured.
    """
    peers = {name: REGISTRY.load(name)() for name in options.peers}
    host = describe_host()
    notes: dict[str, None] = {}
    rows: list[Row] = []
    for case in cases(options):
        progress(str(case))
        rows.append(_Measurement(case, options, host, peers, notes.setdefault).row())
    facts = {
        "cold_bytes": options.cold_bytes,
        "rounds": options.schedule.rounds,
        "unit": "us, minimum of the rounds; *_median is their median",
    }
    return Report("kernels", host, rows, list(notes), facts)


@dataclass(frozen=True)
class _Measurement:
    case: Case
    options: KernelOptions
    host: Host
    peers: Mapping[str, Peer]
    note: Note

    def row(self) -> Row:
        """Sets everything up, lets it run in turn, and takes it down."""
        case = self.case
        sample = make_sample(case.format, case.shape, case.n)
        rotation = rotation_of(case, sample, self.options.cold_bytes)
        with ExitStack() as held:
            team = Team(case.threads)
            held.callback(team.close)
            every = self._runners(sample, rotation)
            for runner in every.values():
                held.callback(runner.close)
            runners = qualified(every)
            level, probes = self._probes(team, sample.weight_bytes * rotation.copies)
            contestants: dict[str, Contestant] = {f"{n}": r.seconds for n, r in runners.items()}
            contestants |= {f"probe {i}": probe.run for i, probe in enumerate(probes)}
            timings = interleave(contestants, self.options.schedule)
            errors = {name: sample.nmse(runner.result()) for name, runner in runners.items()}
            ours = runners.get(_OURS)
            dataflow = getattr(ours, "dataflow", None)
        measured = rates(probes, [timings[f"probe {i}"].best for i in range(len(probes))])
        limit = roof(Work(sample.weight_bytes, sample.operations), level, measured)
        row: Row = {
            "format": case.format,
            "rows": case.shape.rows,
            "cols": case.shape.cols,
            "n": case.n,
            "cache": case.cache,
            "threads": case.threads,
            "activations": case.activations,
            "dataflow": dataflow,
            "weight_bytes": sample.weight_bytes,
            "rotation_bytes": sample.weight_bytes * rotation.copies,
        }
        row |= _compared(timings, errors)
        row |= {"roof": limit.name, "roof_us": limit.seconds * 1e6, "rates": measured}
        ours_us = row["ours_us"]
        row["roof_fraction"] = limit.seconds * 1e6 / ours_us if ours_us else None
        return row

    def _runners(self, sample: Sample, rotation: Rotation) -> dict[str, KernelRunner]:
        """Ours, and `peer/variant` of every peer; those that cannot run are noted."""
        threads = self.case.threads
        makers: dict[str, Callable[[], dict[str, KernelRunner]]] = {
            name: partial(peer.kernels, sample, threads, rotation, self.note)
            for name, peer in self.peers.items()
        }
        found: dict[str, KernelRunner] = {}
        try:
            found[_OURS] = OurKernel(sample, threads, rotation, self.case.activations)
        except NybbleError as reason:
            self.note(f"{self.case}: ours: {reason.message}")
        for name, make in makers.items():
            try:
                found |= {f"{name}/{variant}": one for variant, one in make().items()}
            except UnavailableError as reason:
                self.note(f"{self.case}: {name}: {reason}")
        return found

    def _probes(self, team: Team, size: int) -> tuple[str, list[Probe]]:
        level = self.host.level(size, self.case.threads)
        return level, [*read_probes(team, level, size), *peak_probes(team)]


def _compared(timings: Mapping[str, Timing], errors: Mapping[str, float]) -> Row:
    """The columns that set ours against the best variant of each peer."""
    micro = {name: timing.scaled(1e6) for name, timing in timings.items() if name in errors}
    ours = micro.get(_OURS)
    best: dict[str, str] = {}
    for name in micro:
        peer = name.rpartition("/")[0]
        if peer and (peer not in best or micro[name].best < micro[best[peer]].best):
            best[peer] = name
    fastest = min(best.values(), key=lambda name: micro[name].best, default=None)
    row: Row = {
        "ours_us": ours.best if ours else None,
        "ours_us_median": ours.median if ours else None,
        "nmse": errors.get(_OURS),
        "peers": {peer: micro[name].best for peer, name in best.items()},
        "peers_median": {peer: micro[name].median for peer, name in best.items()},
        "peers_nmse": {peer: errors[name] for peer, name in best.items()},
        "variants": {name: micro[name].best for name in micro if name != _OURS},
        "best_peer": fastest,
        "best_peer_us": micro[fastest].best if fastest else None,
    }
    row["peer_us"] = row["best_peer_us"]
    row["speedup"] = micro[fastest].best / ours.best if fastest and ours else None
    return row
