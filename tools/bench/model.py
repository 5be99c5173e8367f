"""`nybble bench model`: prompts and decoding, ours and the peers' in turn, and perplexities.

A speed-up compares minima of interleaved rounds. Every peer runs under the settings that are best
for it in that phase (tuning.py); its perplexity on the same windows is printed beside its speed,
because a fast wrong answer is no anchor.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nybble.dialects.errors import NybbleError
from nybble.frontend.checkpoint import Checkpoint, open_checkpoint
from nybble.frontend.text import tokenizer_of
from nybble.tools.bench import text
from nybble.tools.bench.contest import (
    DECODE,
    OURS,
    PREFILL,
    Contest,
    Entry,
    Phase,
    external_entry,
    our_entry,
    peer_entries,
)
from nybble.tools.bench.errors import BenchError
from nybble.tools.bench.machine import describe_host
from nybble.tools.bench.model_work import model_work
from nybble.tools.bench.options import ModelOptions
from nybble.tools.bench.ours_model import OurModel
from nybble.tools.bench.peers.api import REGISTRY, Note, Peer, TunableModel
from nybble.tools.bench.peers.llama_bench import Job, run_external
from nybble.tools.bench.peers.requantize import requantized, types_of
from nybble.tools.bench.report import Column, Report, Row

COLUMNS = (
    Column("phase", "phase"),
    Column("depth", "depth"),
    Column("threads", "threads"),
    Column("ours t/s", "ours_tps", "{:.0f}"),
    Column("peer", "peer"),
    Column("type", "peer_type"),
    Column("peer t/s", "peer_tps", "{:.0f}"),
    Column("speedup", "speedup", "{:.2f}"),
    Column("roof", "roof"),
    Column("of roof", "roof_fraction", "{:.0%}"),
    Column("perplexity", "peer_perplexity", "{:.2f}"),
    Column("setting", "peer_setting"),
)
WRONG = 1.5  # times the lowest perplexity: no rounding to 4 bits costs that much


def bench_model(options: ModelOptions, progress: Note = lambda _: None) -> Report:
    """Measures a model; what cannot take part is noted.

    Raises NybbleError for a model, peer, type or program that does not exist.
    """
    return _Measurement(options, progress).report()


@dataclass
class _Measurement:
    options: ModelOptions
    progress: Note
    notes: dict[str, None] = field(default_factory=dict[str, None])

    def report(self) -> Report:
        options = self.options
        peers = {name: REGISTRY.load(name)() for name in options.peers}
        checkpoint = open_checkpoint(options.model)
        sample = text.sample_text()
        ids = tokenizer_of(checkpoint).encode(sample, add_special_tokens=False)
        with ExitStack() as held:
            files = self._files(checkpoint)
            self._try_externals(files)
            models = self._models(held, peers, files)
            ours = self._ours()
            contest = Contest(
                describe_host(), options, model_work(checkpoint), _enough(ids, options.tokens)
            )
            rows = [
                row
                for phase in self._phases()
                for row in contest.rows(phase, self._entries(phase, contest, ours, models, files))
            ]
            perplexity = self._perplexities(ids, contest, ours, models)
        rows = [_with_perplexity(row, perplexity) for row in rows]
        facts: dict[str, Any] = {
            "model": str(checkpoint.path),
            "activations": options.activations,
            "kv": options.kv,
            "weights": options.weights.describe(),
            "prompt_tokens": options.prompt_tokens,
            "decode_tokens": options.decode_tokens,
            "rounds": options.schedule.rounds,
            "unit": "tokens/s of the fastest round; *_median of the median round",
            "text": {"sha256": text.digest(sample), "tokens": len(ids), "window": text.WINDOW},
            "perplexity": perplexity,
            "best": best_peers(rows, perplexity),
        }
        return Report("model", contest.host, rows, list(self.notes), facts)

    def _phases(self) -> Iterator[Phase]:
        for threads in self.options.threads:
            yield Phase(PREFILL, threads)
            for depth in self.options.depths:
                yield Phase(DECODE, threads, depth)

    def _note(self, message: str) -> None:
        self.notes.setdefault(message)

    def _files(self, checkpoint: Checkpoint) -> dict[str, Path]:
        """File type -> GGUF file, for the peers; none for a checkpoint that they cannot read."""
        if not self.options.peers and not self.options.externals:
            return {}
        if checkpoint.path.is_dir():
            self._note("the peers read GGUF files alone")
            return {}
        folder = self.options.folder
        found: dict[str, Path] = {}
        for name in types_of(self.options.peer_types, checkpoint.tensors):
            self.progress(f"{checkpoint.path.name} as {name}")
            try:
                found[name] = requantized(checkpoint.path, name, folder)
            except NybbleError as reason:
                if isinstance(reason, BenchError) and name in self.options.peer_types:
                    raise
                self._note(f"type {name}: {reason}")
        return found

    def _try_externals(self, files: Mapping[str, Path]) -> None:
        """A short job for each program: what does not work is told before minutes pass."""
        for external in self.options.externals:
            for path in files.values():
                self.progress(f"trying {external.name}")
                run_external(external, Job(path, max(self.options.threads), prompt=1))

    def _models(
        self, held: ExitStack, peers: Mapping[str, Peer], files: Mapping[str, Path]
    ) -> dict[tuple[str, str], TunableModel]:
        found: dict[tuple[str, str], TunableModel] = {}
        for name, peer in peers.items():
            for file_type, path in files.items():
                try:
                    model = peer.model(path, self._note)
                except NybbleError as reason:
                    self._note(f"{name} {file_type}: {reason}")
                    continue
                held.callback(model.close)
                found[name, file_type] = model
        return found

    def _ours(self) -> OurModel | None:
        options = self.options
        self.progress("compiling the model")
        try:
            return OurModel(
                options.model,
                options.activations,
                options.context,
                max(options.threads),
                options.weights,
                options.kv,
            )
        except NybbleError as reason:
            self._note(f"ours: {reason}")
            return None

    def _entries(
        self,
        phase: Phase,
        contest: Contest,
        ours: OurModel | None,
        models: Mapping[tuple[str, str], TunableModel],
        files: Mapping[str, Path],
    ) -> list[Entry]:
        self.progress(str(phase))
        entries = [our_entry(ours.runner(phase.threads))] if ours else []
        for (name, file_type), model in models.items():
            try:
                entries += peer_entries(name, file_type, model, phase, contest)
            except NybbleError as reason:
                self._note(f"{name} {file_type}, {phase}: {reason}")
        for external in self.options.externals:
            entries += [
                external_entry(external, file_type, path, phase, contest)
                for file_type, path in files.items()
            ]
        return entries

    def _perplexities(
        self,
        ids: Sequence[int],
        contest: Contest,
        ours: OurModel | None,
        models: Mapping[tuple[str, str], TunableModel],
    ) -> dict[str, Any]:
        """Ours, and peer -> file type -> perplexity, on the windows of the same ids."""
        if not self.options.perplexity:
            return {}
        found: dict[str, Any] = {}
        threads = max(self.options.threads)
        runners = {(OURS, ""): partial(ours.runner, threads)} if ours else {}
        runners |= {
            key: partial(model.runner, threads, self.options.context, contest.setting(*key, model))
            for key, model in models.items()
        }
        for (name, file_type), make in runners.items():
            self.progress(f"perplexity of {name} {file_type}")
            runner = make()
            value = text.perplexity(runner.second_half, ids)
            runner.close()
            if name == OURS:
                found[OURS] = value
                self._note(f"perplexity of ours, {self.options.activations}: {value:.3f}")
            else:
                found.setdefault(name, {})[file_type] = value
        for external in self.options.externals:
            self._note(f"{external.name} is a program of its own: its perplexity is not measured")
        return found


def _enough(ids: list[int], count: int) -> list[int]:
    """At least `count` ids: the given ones over and over."""
    return ids * -(-count // len(ids))


def _with_perplexity(row: Row, perplexity: Mapping[str, Any]) -> Row:
    return row | {"peer_perplexity": perplexity.get(row["peer"], {}).get(row["peer_type"])}


def best_peers(rows: Sequence[Row], perplexity: Mapping[str, Any]) -> list[Row]:
    """For each phase the fastest row of a peer whose answers are right, as far as that is known.

    A perplexity above WRONG times the lowest one is an answer that is not right.
    """
    known = [row["peer_perplexity"] for row in rows if row["peer_perplexity"] is not None]
    known += [perplexity[OURS]] if OURS in perplexity else []
    limit = WRONG * min(known, default=float("inf"))
    best: dict[tuple[object, ...], Row] = {}
    for row in rows:
        key = (row["phase"], row["depth"], row["threads"])
        right = (row["peer_perplexity"] or 0.0) <= limit
        tps = row["peer_tps"]
        if tps is not None and right and (key not in best or tps > best[key]["peer_tps"]):
            best[key] = row
    return list(best.values())
