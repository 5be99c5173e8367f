"""`nybble bench attention`: attention under masks beside others', with the machine's roofs.

A decode step is one token at the end of a full cache, a prefill all tokens from an empty one. Of
"shared", texts with a common beginning, see `attention_shared`. The
roof of a decode is the memory that the keys and values it sees are read from, that of a prefill the
multiplications of the pairs that are seen. Beside a cache of fewer bits runs our own on bf16.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product

import numpy as np

from nybble.backends.cpu.kernels.kv import PADDING
from nybble.dialects.sparse_attn.kv import parse as parse_kv
from nybble.dialects.sparse_attn.masks import Mask, dense, density, parse
from nybble.passes.restrict_attention import static_mask
from nybble.tools.bench.attention_runners import (
    PEERS,
    Inputs,
    LlamaAttention,
    OurAttention,
    TorchAttention,
)
from nybble.tools.bench.attention_shared import SharedAttention, Texts
from nybble.tools.bench.errors import BenchError, UnavailableError
from nybble.tools.bench.machine import Host, describe_host
from nybble.tools.bench.probes.probes import Probe, peak_probes, rates, read_probes
from nybble.tools.bench.probes.team import Team
from nybble.tools.bench.report import Column, Report, Row
from nybble.tools.bench.rounds import Contestant, Schedule, interleave

DECODE, PREFILL = "decode", "prefill"
SHARED = "shared"
PHASES = (DECODE, PREFILL, SHARED)
OURS, HALF, ALONE = "ours", "bf16", "unshared"
COLUMNS = (
    Column("phase", "phase"),
    Column("mask", "mask"),
    Column("softmax", "softmax"),
    Column("kv", "kv"),
    Column("heads", "heads"),
    Column("kv heads", "kv_heads"),
    Column("d", "d"),
    Column("context", "context"),
    Column("density", "density", "{:.3f}"),
    Column("ours us", "ours_us", "{:.1f}"),
    Column("peer", "peer"),
    Column("peer us", "peer_us", "{:.1f}"),
    Column("speedup", "speedup", "{:.2f}"),
    Column("over bf16", "over_bf16", "{:.2f}"),
    Column("over unshared", "over_unshared", "{:.2f}"),
    Column("roof", "roof"),
    Column("of roof", "roof_fraction", "{:.0%}"),
    Column("nmse", "nmse", "{:.1e}"),
)


@dataclass(frozen=True)
class AttentionCase:
    """One attention to measure."""

    phase: str
    mask: str
    softmax: str
    kv: str
    context: int
    heads: int
    kv_heads: int
    d: int

    @property
    def rows(self) -> int:
        """Tokens of a call."""
        return 1 if self.phase == DECODE else self.context

    def density(self, mask: Mask) -> float:
        """Pairs that this call sees, over those that a causal mask has."""
        if self.phase == PREFILL:
            return density(mask, self.context, self.kv_heads)
        last = np.array([self.context - 1])
        return float(dense(mask, last, np.arange(self.context), self.kv_heads).mean())

    def pairs(self) -> float:
        """Query rows of a head times the keys that a causal mask lets them see."""
        return self.context if self.phase == DECODE else self.context * (self.context + 1) / 2


@dataclass(frozen=True)
class AttentionOptions:
    """All combinations are measured. texts: that share a context, and suffix: the tokens that each
    has after it. peers: names of `attention_runners.PEERS`."""

    phases: tuple[str, ...]
    masks: tuple[str, ...]
    softmax: tuple[str, ...]
    kv: tuple[str, ...]
    contexts: tuple[int, ...]
    heads: int
    kv_heads: int
    d: int
    threads: int
    peers: tuple[str, ...]
    schedule: Schedule
    texts: int = 32
    suffix: int = 128

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise BenchError(
                f"{self.heads} heads over {self.kv_heads} of keys", accepted="a multiple of them"
            )
        for context in self.contexts:
            if context % PADDING:
                raise BenchError(f"a context of {context}", accepted=f"a multiple of {PADDING}")
            for text in self.masks:
                static_mask(text).check(context, self.kv_heads)
            for name in self.kv:
                parse_kv(name).check(context, self.d)
        if SHARED in self.phases:
            self._check_shared()

    def _check_shared(self) -> None:
        """Raise BenchError for what texts with a common beginning are not measured with."""
        if self.suffix % PADDING:
            raise BenchError(f"a suffix of {self.suffix}", accepted=f"a multiple of {PADDING}")
        coded = [name for name in self.kv if parse_kv(name).is_coded]
        for name in (*coded, *(mask for mask in self.masks if mask != "causal")):
            raise BenchError(f"{name} of texts that share", accepted="causal; f32, f16, bf16")

    def cases(self) -> Iterator[AttentionCase]:
        """All combinations."""
        sizes = (self.heads, self.kv_heads, self.d)
        for one in product(self.phases, self.masks, self.softmax, self.kv, self.contexts):
            yield AttentionCase(*one, *sizes)


def bench_attention(
    options: AttentionOptions, progress: Callable[[str], None] = lambda _: None
) -> Report:
    """Measure every combination; what cannot be measured is noted."""
    host = describe_host()
    notes: dict[str, None] = {}
    rows: list[Row] = []
    for case in options.cases():
        progress(f"{case.phase} {case.mask} {case.kv} {case.context}")
        measure = measured_shared if case.phase == SHARED else measured
        rows.append(measure(case, options, host, lambda note: notes.setdefault(note)))
    facts = {
        "threads": options.threads,
        "rounds": options.schedule.rounds,
        "unit": "us, minimum of the rounds; *_median is their median",
    }
    return Report("attention", host, rows, list(notes), facts)


def measured(
    case: AttentionCase, options: AttentionOptions, host: Host, note: Callable[[str], object]
) -> Row:
    """The row of one case."""
    mask = parse(case.mask)
    share = case.density(mask)
    kv = parse_kv(case.kv)
    cache_bytes = math.ceil(case.kv_heads * case.context * kv.bits_per_token(case.d) / 8)
    inputs = Inputs.random(case.rows, case.context, (case.heads, case.kv_heads, case.d))
    with ExitStack() as held:
        team = Team(options.threads)
        held.callback(team.close)
        level = host.level(cache_bytes, options.threads)
        probes: Sequence[Probe] = [*read_probes(team, level, cache_bytes), *peak_probes(team)]
        ours = OurAttention(inputs, case.kv, case.mask, case.softmax, options.threads)
        held.callback(ours.close)
        runs: dict[str, Contestant] = {OURS: ours.seconds}
        if kv.is_coded:
            half = OurAttention(inputs, HALF, case.mask, case.softmax, options.threads)
            held.callback(half.close)
            runs[HALF] = half.seconds
        peers: dict[str, TorchAttention | LlamaAttention] = {}
        for name in options.peers:
            try:
                peers[name] = PEERS[name](inputs, case.kv, mask, options.threads)
            except UnavailableError as reason:
                note(f"{name}: {reason}")
                continue
            held.callback(peers[name].close)
            runs[name] = peers[name].seconds
        runs |= {f"probe {i}": probe.run for i, probe in enumerate(probes)}
        timings = interleave(runs, options.schedule)
        found = ours.result()
        against = {name: nmse(found, peer.result()) for name, peer in peers.items()}
    each = rates(probes, [timings[f"probe {i}"].best for i in range(len(probes))])
    flops = 4 * case.heads * case.d * case.pairs() * share
    limits = {level: cache_bytes * share / each[level], "f32": flops / each["f32"]}
    name = max(limits, key=limits.__getitem__)
    best, half = timings[OURS], timings.get(HALF)
    theirs = {one: timings[one].best for one in peers}
    fastest = min(theirs, key=theirs.__getitem__, default=None)
    return {
        "phase": case.phase, "mask": case.mask, "softmax": case.softmax, "kv": case.kv,
        "heads": case.heads, "kv_heads": case.kv_heads, "d": case.d, "context": case.context,
        "density": share, "ours_us": best.best * 1e6, "ours_us_median": best.median * 1e6,
        "peers": {one: seconds * 1e6 for one, seconds in theirs.items()}, "peer": fastest,
        "peer_us": None if fastest is None else theirs[fastest] * 1e6,
        "speedup": None if fastest is None else theirs[fastest] / best.best,
        "over_bf16": None if half is None else half.best / best.best, "over_unshared": None,
        "bits_per_token": kv.bits_per_token(case.d) * case.kv_heads,
        "roof": name, "roof_us": limits[name] * 1e6, "roof_fraction": limits[name] / best.best,
        "nmse": min(against.values(), default=None), "nmse_of_peers": against, "rates": each,
    }  # fmt: skip


def measured_shared(
    case: AttentionCase, options: AttentionOptions, host: Host, note: Callable[[str], object]
) -> Row:
    """The row of texts that share `case.context` tokens.

    Unshared is one text over and over, on a cache of its own: as many times its keys are read.
    """
    note("shared: the unshared time is that of one text times their number; no peer takes part")
    texts, suffix = options.texts, options.suffix
    inputs = Texts.random(texts, (case.context, suffix), (case.heads, case.kv_heads, case.d))
    tokens = case.context + texts * suffix
    bits = case.kv_heads * tokens * parse_kv(case.kv).bits_per_token(case.d)
    with ExitStack() as held:
        team = Team(options.threads)
        held.callback(team.close)
        level = host.level(math.ceil(bits / 8), options.threads)
        probes = [*read_probes(team, level, math.ceil(bits / 8)), *peak_probes(team)]
        ours = SharedAttention(inputs, case.kv, options.threads)
        held.callback(ours.close)
        alone = OurAttention(inputs.alone(0), case.kv, case.mask, "online", options.threads)
        held.callback(alone.close)
        runs: dict[str, Contestant] = {OURS: ours.seconds, ALONE: alone.seconds}
        runs |= {f"probe {i}": probe.run for i, probe in enumerate(probes)}
        timings = interleave(runs, options.schedule)
        against = nmse(ours.result()[:1], alone.result())
    each = rates(probes, [timings[f"probe {i}"].best for i in range(len(probes))])
    flops = 4 * case.heads * case.d * texts * (case.context + suffix)
    limits = {level: bits / 8 / each[level], "f32": flops / each["f32"]}
    name = max(limits, key=limits.__getitem__)
    best, unshared = timings[OURS], timings[ALONE].best * texts
    return {
        "phase": case.phase, "mask": case.mask, "softmax": case.softmax, "kv": case.kv,
        "heads": case.heads, "kv_heads": case.kv_heads, "d": case.d, "context": case.context,
        "texts": texts, "suffix": suffix, "density": 1.0, "ours_us": best.best * 1e6,
        "ours_us_median": best.median * 1e6, "peers": {}, "peer": None, "peer_us": None,
        "speedup": None, "over_bf16": None, "unshared_us": unshared * 1e6,
        "over_unshared": unshared / best.best, "roof": name, "roof_us": limits[name] * 1e6,
        "roof_fraction": limits[name] / best.best, "nmse": against, "rates": each,
    }  # fmt: skip


def nmse(found: np.ndarray, wanted: np.ndarray) -> float:
    """Normalised mean square error of one result against another."""
    difference = found.astype(np.float64) - wanted
    return float(np.square(difference).sum() / np.square(wanted.astype(np.float64)).sum())
