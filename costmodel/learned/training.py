"""From measurements to a cost model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nybble.costmodel.data.dataset import Group
from nybble.costmodel.features.estimate import TERMS
from nybble.costmodel.learned.boosting import Growth, count, grown, order, regress, said, slim
from nybble.costmodel.learned.calibration import Calibration, calibrate, kind_of
from nybble.costmodel.learned.model import COUNTS, INPUTS, CostModel, inputs, ordered
from nybble.costmodel.learned.novelty import Novelty, place
from nybble.costmodel.learned.split import folds_of
from nybble.costmodel.targets.target import Target
from nybble.dialects.errors import NybbleError

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
CONFIDENCE = 0.9
FEWEST = 8
"""Groups that a model can be learned from at all."""
RESIDUAL = Growth(trees=200, leaves=31, rate=0.1)
ORDER = Growth(trees=100, leaves=20, rate=0.12)
STRANGE = Growth(trees=60, leaves=24, rate=0.14)
CODE = Growth(trees=30, leaves=15, rate=0.25)
IDENTITY = (
    *("rows", "cols", "tokens", "weight_bytes", "operations", "stream_bytes", "multiplies"),
    *("decodes", "inputs", "bits_per_weight"),
)
"""By these trees would recognise a problem that was measured, and learn its own time by heart."""
KINSHIP = tuple(name for name in INPUTS if name.startswith("is_"))
"""And by these a family."""


class TrainingError(NybbleError):
    """Measurements that no model can be learned from."""


@dataclass(frozen=True)
class Rows:
    """Groups as arrays, one after the other."""

    groups: Sequence[Group]
    target: Target

    @cached_property
    def x(self) -> F64:
        """Features of every row."""
        return np.concatenate([one[0] for one in self._parts])

    @cached_property
    def terms(self) -> F64:
        """Analytic terms of every row."""
        return np.concatenate([one[1] for one in self._parts])

    @cached_property
    def analytic(self) -> F64:
        """Analytic seconds of every row, with the target's rates as they are written down."""
        return np.concatenate([one[2] for one in self._parts])

    @cached_property
    def seconds(self) -> F64:
        """Measured seconds."""
        return np.concatenate([group.seconds for group in self.groups])

    @cached_property
    def owner(self) -> npt.NDArray[np.int64]:
        """The group of every row."""
        return np.repeat(np.arange(len(self.groups)), [len(group) for group in self.groups])

    def weights(self, picked: npt.NDArray[np.bool_]) -> F64:
        """What some rows count: a problem with four times as many counts twice as much."""
        problems = np.array([group.problem for group in self.groups])[self.owner][picked]
        _, own, counts = np.unique(problems, return_inverse=True, return_counts=True)
        found = 1.0 / np.sqrt(counts[own])
        return found / found.mean()

    @cached_property
    def families(self) -> list[str]:
        """The family of every row."""
        return [facts.family for group in self.groups for facts in group.facts]

    @cached_property
    def kinds(self) -> list[str]:
        """What each row shares its calibration with."""
        return [
            kind_of(facts.family, group.call.tokens)
            for group in self.groups
            for facts in group.facts
        ]

    @cached_property
    def _parts(self) -> list[tuple[F64, F64, F64]]:
        return [features_of(group, self.target) for group in self.groups]

    def calibrated(self, calibration: Calibration) -> F64:
        """Seconds of every row by the terms alone."""
        named, found = np.array(self.kinds), np.zeros(len(self.seconds))
        for kind in dict.fromkeys(self.kinds):
            own = named == kind
            found[own] = calibration.seconds(kind, self.terms[own], self.analytic[own])
        return found


def features_of(group: Group, target: Target) -> tuple[F64, F64, F64]:
    """Features, analytic terms and analytic seconds of a group's rows."""
    x, parts = np.zeros((len(group), len(INPUTS))), np.zeros((len(group), len(TERMS)))
    seconds = np.zeros(len(group))
    own: dict[int, list[int]] = {}
    for number, facts in enumerate(group.facts):
        own.setdefault(id(facts), []).append(number)
    for numbers in own.values():
        options = [group.options[number] for number in numbers]
        x[numbers], found = inputs(group.facts[numbers[0]], group.call, options, target)
        parts[numbers], seconds[numbers] = found.matrix(), found.total()
    return x, parts, seconds


@dataclass(frozen=True)
class Times:
    """What predicts times: rates of the terms, and trees (as text) of what they leave."""

    calibration: Calibration
    text: str

    def of(self, rows: Rows) -> tuple[F64, F64]:
        """Seconds of every row by the terms alone, and the factor that trees put on them."""
        return rows.calibrated(self.calibration), np.exp(said(grown(self.text), rows.x))


def fit_times(rows: Rows, picked: npt.NDArray[np.bool_]) -> Times:
    """Learn times from some of the rows."""
    seconds = rows.seconds[picked]
    kinds = [kind for kind, wanted in zip(rows.kinds, picked, strict=True) if wanted]
    calibration = calibrate(kinds, rows.terms[picked], seconds)
    residual = np.log(seconds / rows.calibrated(calibration)[picked])
    trees = regress(rows.x[picked], residual, RESIDUAL, INPUTS, rows.weights(picked), IDENTITY)
    return Times(calibration, slim(trees, explained=True))


def fit_strange(rows: Rows, picked: npt.NDArray[np.bool_]) -> str:
    """Learn what the written-down terms leave, whatever the family; trees as text."""
    off = np.log(rows.seconds / rows.analytic)[picked]
    weights = rows.weights(picked)
    return slim(regress(rows.x[picked], off, STRANGE, INPUTS, weights, KINSHIP))


def fit_order(rows: Rows, picked: npt.NDArray[np.bool_]) -> str:
    """Learn an order of candidates from some of the rows; trees as text."""
    sizes = [int(one) for one in np.bincount(rows.owner[picked]) if one]
    return slim(order(rows.x[picked], rows.seconds[picked], sizes, ORDER, INPUTS, IDENTITY))


def fit_counts(rows: Rows) -> dict[str, str]:
    """Learn what compiled code looks like; name of a count -> trees as text."""
    code = [code for group in rows.groups for code in group.code]
    found: dict[str, str] = {}
    for name, parts in COUNTS.items():
        wanted = np.array([sum(one.get(part, 0) for part in parts) for one in code], np.float64)
        found[name] = slim(count(rows.x, wanted, CODE, INPUTS))
    return found


def novelty_of(groups: Sequence[Group]) -> Novelty:
    """What is near to some groups."""
    places: list[F64] = []
    problems: list[str] = []
    for group in groups:
        for facts in {id(one): one for one in group.facts}.values():
            places.append(place(facts, group.call))
            problems.append(group.problem)
    return Novelty.of(places, problems)


def half_widths(errors: F64, families: Sequence[str]) -> dict[str, float]:
    """Family -> what CONFIDENCE of the errors of log(seconds) do not exceed (split conformal)."""
    found: dict[str, float] = {}
    named = np.array(families)
    for family in dict.fromkeys(families):
        own = np.abs(errors[named == family])
        level = min(1.0, np.ceil((len(own) + 1) * CONFIDENCE) / len(own))
        found[family] = float(np.quantile(own, level, method="higher"))
    return found


@dataclass(frozen=True)
class HeldOut:
    """What models without a row's problem say of it. base: by the terms alone; score: of order."""

    seconds: F64
    base: F64
    score: F64

    def order(self, places: Sequence[I64]) -> F64:
        """What the rows of each workload are sorted by: their place in its order."""
        found = np.zeros(len(self.seconds))
        for group in places:
            own = ordered(self.seconds[group], lambda few, own=group: self.score[own[few]])
            found[group[own]] = np.arange(len(group))
        return found


def out_of_fold(rows: Rows, folds: I64, *, score: bool = True) -> HeldOut:
    """Predictions of every row by a model that has not seen its fold. folds: of each row.

    score: whether to learn the order too; else it is 0.
    """
    found = HeldOut(*(np.zeros_like(rows.analytic) for _ in range(3)))
    for fold in sorted(set(folds.tolist())):
        held = folds == fold
        if held.all():
            found.seconds[:], found.base[:] = rows.analytic, rows.analytic
            continue
        base, factor = fit_times(rows, ~held).of(rows)
        found.base[held] = base[held]
        found.seconds[held] = (base * factor)[held]
        if score:
            found.score[held] = said(grown(fit_order(rows, ~held)), rows.x[held])
    return found


def train(groups: Sequence[Group], target: Target, card: dict[str, object]) -> CostModel:
    """A model of all groups; its intervals are calibrated on problems held out in turn."""
    if len(groups) < FEWEST or len({group.problem for group in groups}) < 3:
        raise TrainingError(
            f"{len(groups)} workloads of {len({g.problem for g in groups})} problems",
            accepted=f"at least {FEWEST} workloads of 3 problems: nybble cost collect",
        )
    rows = Rows(groups, target)
    folds = folds_of([group.problem for group in groups])[rows.owner]
    held = out_of_fold(rows, folds, score=False)
    everything = np.ones(len(rows.seconds), np.bool_)
    times = fit_times(rows, everything)
    texts = {
        "residual": times.text,
        "order": fit_order(rows, everything),
        "strange": fit_strange(rows, everything),
        **fit_counts(rows),
    }
    return CostModel(
        texts,
        times.calibration,
        half_widths(np.log(rows.seconds / held.seconds), rows.families),
        half_widths(np.log(rows.seconds / held.base), rows.families),
        novelty_of(groups),
        card,
    )
