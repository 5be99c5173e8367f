"""What `nybble cost train` and `nybble cost eval` do: measurements in, a model or figures out."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.isa import BASELINE, LEVELS
from nybble.backends.cpu.machine import Machine, for_level
from nybble.costmodel.canonical import parse
from nybble.costmodel.data.dataset import Record, groups_of, read_parquet, record
from nybble.costmodel.data.log import Log
from nybble.costmodel.data.measurement import Stand
from nybble.costmodel.features.facts import facts_of
from nybble.costmodel.features.table import Call
from nybble.costmodel.features.tokens import ngrams, tokens
from nybble.costmodel.learned.evaluation import Verdict, as_json, evaluate
from nybble.costmodel.learned.model import CostModel
from nybble.costmodel.learned.split import folds_of
from nybble.costmodel.learned.training import Rows, train
from nybble.costmodel.learned.transfer import LABELS, held_out, moved
from nybble.costmodel.targets.reader import target_for_level
from nybble.costmodel.targets.target import Target
from nybble.dialects.errors import NybbleError

DATASET = "cpu_x86_64_v3.parquet"
WORKLOAD, MACHINE = "workload", "machine"
SPLITS = (WORKLOAD, *LABELS, MACHINE)
"""What is held out together."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """Records of one stand."""

    records: list[Record]
    stand: Stand

    @property
    def level(self) -> str:
        """The instruction-set level of their code."""
        return level_of(self.stand)

    @property
    def target(self) -> Target:
        """What their features and analytic times are of."""
        return target_for_level(self.level)

    @property
    def digest(self) -> str:
        """Stands for all of them, whatever their order."""
        lines = sorted(
            f"{one.text}|{one.tokens}|{one.shares}|{one.cached}|{one.options}|{one.halves[0]:.4g}"
            for one in self.records
        )
        return sha256("\n".join(lines).encode()).hexdigest()[:16]


def level_of(stand: Stand) -> str:
    """The highest level that the machine of a stand has; the baseline where that is not told."""
    triple, *rest = stand.target.rpartition(" ")[2].split("/")
    if len(rest) != 2:
        return BASELINE.name
    machine = Machine(triple, rest[0], tuple(rest[1].split(",")))
    able = [isa.name for isa in LEVELS.values() if machine.runs(for_level(isa))]
    return able[-1] if able else BASELINE.name


def measured(path: str | None) -> Measured:
    """The measurements of a log or a Parquet file; those that come with nybble without a path."""
    if path is None:
        with as_file(files("nybble.costmodel.data").joinpath(DATASET)) as shipped:
            return Measured(*read_parquet(shipped))
    if path.endswith(".parquet"):
        return Measured(*read_parquet(Path(path)))
    with Log(Path(path), create=False) as log:
        good = [one for one in log.measurements() if one.failure is None]
    if not good:
        raise NybbleError(f"{path} has no measurements", accepted="nybble cost collect --out DB")
    stands = {one.stand for one in good}
    if len(stands) > 1:
        known = ", ".join(sorted(f"{one.target} with {one.compiler}" for one in stands))
        raise NybbleError(f"{path} has measurements of {len(stands)} stands: {known}")
    return Measured([record(one) for one in good], good[0].stand)


def quiet(data: Measured, most: float) -> Measured:
    """Without the workloads that were measured while the machine was disturbed.

    most: how far the least times of one half of the rounds may be from those of the other, in the
    mean over the candidates, as a logarithm.
    """
    rows = Rows(groups_of(data.records), data.target)
    noise = [np.abs(np.log(one.halves[:, 0] / one.halves[:, 1])).mean() for one in rows.groups]
    kept = [
        one
        for one, owner in zip(in_order(data.records, rows), rows.owner, strict=True)
        if noise[owner] <= most
    ]
    return Measured(kept, data.stand)


def learn(data: Measured) -> CostModel:
    """A model of some measurements, with a card."""
    groups = groups_of(data.records)
    card: dict[str, object] = {
        "target": data.stand.target,
        "level": data.level,
        "compiler": data.stand.compiler,
        "data": data.digest,
        "date": date.today().isoformat(),
        "measurements": len(data.records),
        "workloads": len(groups),
        "problems": len({group.problem for group in groups}),
    }
    return train(groups, data.target, card)


def judge(data: Measured, *, texts: bool, say: Say) -> tuple[Rows, Verdict, dict[str, object]]:
    """Figures on problems that were held out. texts: whether to train the baseline on tokens."""
    rows = Rows(groups_of(data.records), data.target)
    folds = folds_of([group.problem for group in rows.groups])
    verdict = evaluate(rows, folds, text_features(data.records, rows) if texts else None, say)
    report = {"split": "workload", "data": data.digest, **as_json(verdict.report)}
    return rows, verdict, report


def judge_transfer(
    data: Measured, split: str, other: Measured | None, say: Say
) -> dict[str, object]:
    """Figures on a family, a format or a machine that was left out.

    other: measurements of another machine, which `--split machine` needs.
    """
    target = data.target
    rows = Rows(groups_of(data.records), target)
    report: dict[str, object] = {"split": split, "data": data.digest}
    if split != MACHINE:
        return report | as_json(held_out(rows, split, say))
    if other is None:
        raise NybbleError(
            f"one machine alone was measured: {data.stand.target}",
            accepted="--other FILE with measurements of another; nybble comes with those of one",
        )
    if other.stand.target == data.stand.target:
        raise NybbleError(
            f"both files were measured on {data.stand.target}", accepted="another machine's"
        )
    found = moved(Rows(groups_of(other.records), target), rows, say)
    machines = {"from": data.stand.target, "to": other.stand.target, "other_data": other.digest}
    return report | machines | as_json(found)


def text_features(records: list[Record], rows: Rows) -> npt.NDArray[np.float64]:
    """N-grams of the tokens of every row, in the order of `rows`."""
    return np.array([ngrams(tokens_of(one)) for one in in_order(records, rows)])


def tokens_of(one: Record) -> list[str]:
    """What sequence models read of a measurement."""
    calls = {"tokens": one.tokens, "shares": one.shares, "cached": one.cached}
    return tokens(one.text, json.loads(one.options), calls)


def in_order(records: list[Record], rows: Rows) -> list[Record]:
    """The records in the order of `rows`, which are the same, workload by workload."""
    found: dict[tuple[str, Call], list[Record]] = {}
    problems = _problems(records)
    for one in records:
        call = Call(one.tokens, one.shares, one.cached)
        found.setdefault((problems[one.text], call), []).append(one)
    return [one for group in rows.groups for one in found[group.problem, group.call]]


def _problems(records: list[Record]) -> dict[str, str]:
    return {text: facts_of(parse(text)).problem for text in {one.text for one in records}}
