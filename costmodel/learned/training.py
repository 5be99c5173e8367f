"""From measurements to a cost model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nybble.costmodel.data.dataset import Group
from nybble.costmodel.features.estimate import terms
from nybble.costmodel.features.table import COLUMNS, table
from nybble.costmodel.learned.boosting import Growth, count, order, regress, slim
from nybble.costmodel.learned.model import COUNTS, CostModel
from nybble.costmodel.learned.novelty import Novelty, place
from nybble.costmodel.learned.split import folds_of
from nybble.costmodel.targets.target import Target
from nybble.dialects.errors import NybbleError

F64 = npt.NDArray[np.float64]
CONFIDENCE = 0.9
FEWEST = 8
"""Groups that a model can be learned from at all."""
RESIDUAL = Growth(trees=260, leaves=24, rate=0.09)
ORDER = Growth(trees=160, leaves=20, rate=0.1)
CODE = Growth(trees=60, leaves=15, rate=0.15)


class TrainingError(NybbleError):
    """Measurements that no model can be learned from."""


@dataclass(frozen=True)
class Rows:
    """Groups as arrays, one after the other. x: features; base: analytic seconds."""

    groups: Sequence[Group]
    target: Target

    @cached_property
    def x(self) -> F64:
        """Features of every row."""
        return np.concatenate([one[0] for one in self._parts])

    @cached_property
    def base(self) -> F64:
        """Analytic seconds of every row."""
        return np.concatenate([one[1] for one in self._parts])

    @cached_property
    def seconds(self) -> F64:
        """Measured seconds."""
        return np.concatenate([group.seconds for group in self.groups])

    @cached_property
    def residual(self) -> F64:
        """log(measured / analytic)."""
        return np.log(self.seconds / self.base)

    @cached_property
    def owner(self) -> npt.NDArray[np.int64]:
        """The group of every row."""
        return np.repeat(np.arange(len(self.groups)), [len(group) for group in self.groups])

    @cached_property
    def families(self) -> list[str]:
        """The family of every row."""
        return [facts.family for group in self.groups for facts in group.facts]

    @cached_property
    def _parts(self) -> list[tuple[F64, F64]]:
        return [features_of(group, self.target) for group in self.groups]


def features_of(group: Group, target: Target) -> tuple[F64, F64]:
    """Features and analytic seconds of a group's rows."""
    x, base = np.zeros((len(group), len(COLUMNS))), np.zeros(len(group))
    own: dict[int, list[int]] = {}
    for number, facts in enumerate(group.facts):
        own.setdefault(id(facts), []).append(number)
    for numbers in own.values():
        facts = group.facts[numbers[0]]
        options = [group.options[number] for number in numbers]
        x[numbers] = table(facts, group.call, options)
        base[numbers] = terms(facts, group.call, options, target).total()
    return x, base


def fit_texts(rows: Rows, chosen: npt.NDArray[np.bool_], *, counts: bool = False) -> dict[str, str]:
    """Trees learned from some of the groups, as text."""
    picked = chosen[rows.owner]
    x, seconds = rows.x[picked], rows.seconds[picked]
    sizes = [len(group) for group, wanted in zip(rows.groups, chosen, strict=True) if wanted]
    found = {
        "residual": slim(regress(x, rows.residual[picked], RESIDUAL, COLUMNS)),
        "order": slim(order(x, seconds, sizes, ORDER, COLUMNS)),
    }
    if counts:
        code = [code for group in rows.groups for code in group.code]
        for name in COUNTS:
            y = np.array([one.get(name, 0) for one in code], np.float64)
            found[name] = slim(count(x, y[picked], CODE, COLUMNS))
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


def out_of_fold(rows: Rows, folds: npt.NDArray[np.int64]) -> tuple[F64, F64]:
    """What models without a row's problem say of it: residual, and score of the ranking."""
    from nybble.costmodel.learned.boosting import grown

    residual, score = np.zeros(len(rows.seconds)), np.zeros(len(rows.seconds))
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        if not held.any() or held.all():
            continue
        texts = fit_texts(rows, ~held)
        picked = held[rows.owner]
        residual[picked] = grown(texts["residual"]).predict(rows.x[picked], num_threads=1)
        score[picked] = grown(texts["order"]).predict(rows.x[picked], num_threads=1)
    return residual, score


def train(groups: Sequence[Group], target: Target, card: dict[str, object]) -> CostModel:
    """A model of all groups; its intervals are calibrated on problems held out in turn."""
    if len(groups) < FEWEST or len({group.problem for group in groups}) < 3:
        raise TrainingError(
            f"{len(groups)} workloads of {len({g.problem for g in groups})} problems",
            accepted=f"at least {FEWEST} workloads of 3 problems: nybble cost collect",
        )
    rows = Rows(groups, target)
    residual, _ = out_of_fold(rows, folds_of([group.problem for group in groups]))
    return CostModel(
        fit_texts(rows, np.ones(len(groups), np.bool_), counts=True),
        half_widths(rows.residual - residual, rows.families),
        half_widths(rows.residual, rows.families),
        novelty_of(groups),
        card,
    )
