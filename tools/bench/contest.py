"""One phase of a model under every contestant: who takes part, and the rows that come of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nybble.tools.bench.machine import Host
from nybble.tools.bench.model_work import ModelWork
from nybble.tools.bench.options import ModelOptions
from nybble.tools.bench.peers.api import ModelRunner, TunableModel
from nybble.tools.bench.peers.llama_bench import External, Job, run_external
from nybble.tools.bench.probes.probes import peak_probes, rates, read_probes
from nybble.tools.bench.probes.team import Team
from nybble.tools.bench.report import Row
from nybble.tools.bench.roofs import Work, roof
from nybble.tools.bench.rounds import Contestant, Timing, interleave
from nybble.tools.bench.tuning import Setting, finalists

PREFILL, DECODE = "prefill", "decode"
OURS = "ours"
LOOK_TOKENS = 16  # decoded in a first look at a setting


@dataclass(frozen=True)
class Phase:
    """A prompt, or decoding from a depth, on a number of threads."""

    name: str
    threads: int
    depth: int = 0

    def __str__(self) -> str:
        where = f" from {self.depth}" if self.name == DECODE else ""
        return f"{self.name}{where}, {self.threads} threads"


def spelled(setting: Setting) -> str:
    """A setting as a report has it."""
    return ", ".join(f"{name} {value}" for name, value in setting.items())


@dataclass(frozen=True)
class Entry:
    """A contestant: whose, with which file type, under which setting.

    run: one turn, in seconds; prepare: called once before the rounds.
    """

    name: str
    file_type: str
    setting: Setting
    run: Callable[["Contest", Phase], float]
    prepare: Callable[["Contest", Phase], object]
    close: Callable[[], None]

    @property
    def key(self) -> str:
        """What tells this contestant from the others."""
        return f"{self.name} {self.file_type} {spelled(self.setting)}"


@dataclass
class Contest:
    """What all phases share. ids: tokens of a text, as many as the longest phase takes.

    settings: (peer, file type) -> what tuning found for a prompt.
    """

    host: Host
    options: ModelOptions
    work: ModelWork
    ids: Sequence[int]
    settings: dict[tuple[str, str], Setting] = field(default_factory=dict[tuple[str, str], Setting])

    def setting(self, name: str, file_type: str, model: TunableModel) -> Setting:
        """What tuning found for a prompt of this peer and type, or its default."""
        default = {dimension: values[0] for dimension, values in model.choices(True).items()}
        return self.settings.get((name, file_type), default)

    def tokens(self, phase: Phase) -> int:
        """Tokens that a run of the phase is credited with."""
        options = self.options
        return options.prompt_tokens if phase.name == PREFILL else options.decode_tokens

    def fill(self, runner: ModelRunner, phase: Phase) -> None:
        """Feeds what comes before the phase."""
        if phase.depth:
            runner.prefill(self.ids[: phase.depth])

    def seconds(self, runner: ModelRunner, phase: Phase, most: int | None = None) -> float:
        """Runs the phase once, of at most `most` tokens where it decodes."""
        if phase.name == PREFILL:
            return runner.prefill(self.ids[: self.options.prompt_tokens])
        count = min(most or self.options.decode_tokens, self.options.decode_tokens)
        return runner.decode(self.ids[phase.depth : phase.depth + count], phase.depth)

    def rows(self, phase: Phase, entries: Sequence[Entry]) -> list[Row]:
        """Lets the contestants run in turn with probes, then closes them.

        A row for each peer and type, of the entry that was fastest.
        """
        for entry in entries:
            entry.prepare(self, phase)
        team = Team(phase.threads)
        level = self.host.level(self.work.bytes, phase.threads)
        probes = [*read_probes(team, level, self.work.bytes), *peak_probes(team)]
        runs: dict[str, Contestant] = {
            entry.key: lambda entry=entry: entry.run(self, phase) for entry in entries
        }
        runs |= {f"probe {i}": probe.run for i, probe in enumerate(probes)}
        timings = interleave(runs, self.options.schedule)
        team.close()
        for entry in entries:
            entry.close()
        measured = rates(probes, [timings[f"probe {i}"].best for i in range(len(probes))])
        limit = roof(self._work(phase), level, measured)
        tokens = self.tokens(phase)
        ours = next((timings[one.key] for one in entries if one.name == OURS), None)
        per_token = limit.seconds / (tokens if phase.name == PREFILL else 1)
        head: Row = {
            "phase": phase.name,
            "depth": phase.depth,
            "threads": phase.threads,
            "ours_tps": tokens / ours.best if ours else None,
            "ours_tps_median": tokens / ours.median if ours else None,
            "roof": limit.name,
            "roof_tps": 1 / per_token,
            "roof_fraction": per_token * tokens / ours.best if ours else None,
            "rates": measured,
        }
        fastest: dict[tuple[str, str], Entry] = {}
        for one in sorted(entries, key=lambda entry: timings[entry.key].best):
            if one.name != OURS:
                fastest.setdefault((one.name, one.file_type), one)
        if not fastest:
            return [head | dict.fromkeys(_PEER_KEYS)]
        return [head | _against(one, timings[one.key], tokens, ours) for one in fastest.values()]

    def _work(self, phase: Phase) -> Work:
        if phase.name == DECODE:
            return self.work.decode()
        return self.work.prefill(self.options.prompt_tokens)


_PEER_KEYS = (
    "peer", "peer_type", "peer_setting", "peer_tps", "peer_tps_median", "speedup", "speedup_median",
)  # fmt: skip


def _against(peer: Entry, timing: Timing, tokens: int, ours: Timing | None) -> Row:
    values = (
        peer.name,
        peer.file_type,
        spelled(peer.setting),
        tokens / timing.best,
        tokens / timing.median,
        timing.best / ours.best if ours else None,
        timing.median / ours.median if ours else None,
    )
    return dict(zip(_PEER_KEYS, values, strict=True))


def our_entry(runner: ModelRunner) -> Entry:
    """Ours."""
    return _runner_entry(OURS, "", {}, runner)


def peer_entries(
    name: str, file_type: str, model: TunableModel, phase: Phase, contest: Contest
) -> list[Entry]:
    """A peer under each of the settings that may be best for it in this phase."""

    def look(setting: Setting) -> float:
        runner = model.runner(phase.threads, contest.options.context, setting)
        try:
            contest.fill(runner, phase)
            return contest.seconds(runner, phase, LOOK_TOKENS)
        finally:
            runner.close()

    settings = finalists(model.choices(phase.name == PREFILL), look)
    if phase.name == PREFILL:
        contest.settings[name, file_type] = settings[0]
    return [
        _runner_entry(
            name,
            file_type,
            setting,
            model.runner(phase.threads, contest.options.context, setting),
        )
        for setting in settings
    ]


def external_entry(
    external: External, file_type: str, path: Path, phase: Phase, contest: Contest
) -> Entry:
    """An external program; its own time counts, not that of its start."""
    tokens = contest.tokens(phase)
    if phase.name == PREFILL:
        job = Job(path, phase.threads, prompt=tokens)
    else:
        job = Job(path, phase.threads, decode=tokens, depth=phase.depth)
    return Entry(
        external.name,
        file_type,
        {},
        lambda _contest, _phase: run_external(external, job),
        lambda _contest, _phase: None,
        lambda: None,
    )


def _runner_entry(name: str, file_type: str, setting: Setting, runner: ModelRunner) -> Entry:
    return Entry(
        name,
        file_type,
        setting,
        lambda contest, phase: contest.seconds(runner, phase),
        lambda contest, phase: contest.fill(runner, phase),
        runner.close,
    )
