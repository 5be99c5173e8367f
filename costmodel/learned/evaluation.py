"""How good a cost model is on problems it has not seen, beside what one gets without it.

All figures are of rows that no model was trained on: problems are held out fold by fold (see
`split`). Regret is how much slower the chosen candidate is than the best of its workload.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nybble.costmodel.features.estimate import roofline
from nybble.costmodel.features.table import COLUMNS, DERIVED
from nybble.costmodel.learned.boosting import regress, said
from nybble.costmodel.learned.training import (
    RESIDUAL,
    Rows,
    half_widths,
    novelty_of,
    out_of_fold,
)

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
MANY = 100
"""Candidates of a workload that a figure about choices counts."""
NEAR = 1.02


@dataclass(frozen=True)
class Predicted:
    """What some model says of every row. order: what candidates are sorted by, the least first;
    seconds: None for a model that predicts none."""

    order: F64
    seconds: F64 | None = None


@dataclass(frozen=True)
class Judge:
    """Rows, and the workloads among them that choices are judged on."""

    rows: Rows
    least: int = MANY
    places: list[npt.NDArray[np.int64]] = field(init=False)

    def __post_init__(self) -> None:
        ends = np.cumsum([len(group) for group in self.rows.groups])
        places = [
            np.arange(end - len(g), end) for end, g in zip(ends, self.rows.groups, strict=True)
        ]
        object.__setattr__(self, "places", places)

    @property
    def judged(self) -> list[npt.NDArray[np.int64]]:
        """The rows of each workload that counts."""
        return [place for place in self.places if len(place) >= self.least]

    def figures(self, predicted: Predicted) -> dict[str, float]:
        """mape, tau, top1_regret_mean, top1_regret_p95, top5_regret_mean, trials_to_2pct.

        Errors and regrets in per cent; without workloads that count, NaN.
        """
        order, seconds = predicted.order, self.rows.seconds
        top1: list[float] = []
        top5: list[float] = []
        tau: list[float] = []
        trials: list[float] = []
        for place in self.judged:
            taken = seconds[place][np.argsort(order[place], kind="stable")]
            best = taken.min()
            top1.append(100 * (taken[0] / best - 1))
            top5.append(100 * (taken[:5].min() / best - 1))
            trials.append(1.0 + int(np.argmax(taken <= NEAR * best)))
            tau.append(kendall(order[place], seconds[place]))
        found = {
            "tau": _mean(tau),
            "top1_regret_mean": _mean(top1),
            "top1_regret_p95": float(np.percentile(top1, 95)) if top1 else float("nan"),
            "top5_regret_mean": _mean(top5),
            "trials_to_2pct": _mean(trials),
        }
        if predicted.seconds is not None:
            found["mape"] = float(100 * np.abs(predicted.seconds / seconds - 1).mean())
        return found

    def regrets(self, order: F64) -> F64:
        """Top-1 regret of each workload that counts, in per cent."""
        seconds = self.rows.seconds
        return np.array(
            [
                100 * (seconds[place][np.argmin(order[place])] / seconds[place].min() - 1)
                for place in self.judged
            ]
        )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def kendall(x: F64, y: F64) -> float:
    """Kendall's tau-b (Biometrika 33, 1945): 1 for the same order, 0 for none or all ties."""
    dx, dy = np.sign(x[:, None] - x[None]), np.sign(y[:, None] - y[None])
    ties = float((dx != 0).sum()) * float((dy != 0).sum())
    return float((dx * dy).sum() / ties**0.5) if ties else 0.0


def shuffled(rows: Rows) -> Predicted:
    """Candidates in a random order."""
    return Predicted(np.random.default_rng(0).random(len(rows.seconds)))


def by_roofline(rows: Rows) -> Predicted:
    """Sizes alone; candidates of one dataflow are alike, and taken in a random order."""
    seconds = np.concatenate(
        [
            [roofline(facts, group.call, rows.target) for facts in group.facts]
            for group in rows.groups
        ]
    )
    jitter = np.random.default_rng(0).random(len(seconds))
    return Predicted(seconds * (1 + 1e-9 * jitter), seconds)


def learned_on(rows: Rows, folds: I64, x: F64) -> Predicted:
    """Trees on other features, which predict log(seconds)."""
    found = np.zeros(len(rows.seconds))
    names = [f"x{i}" for i in range(x.shape[1])]
    for fold in sorted(set(folds.tolist())):
        held = (folds == fold)[rows.owner]
        trees = regress(x[~held], np.log(rows.seconds[~held]), RESIDUAL, names)
        found[held] = said(trees, x[held])
    return Predicted(np.exp(found), np.exp(found))


def config_only(rows: Rows) -> F64:
    """Facts and sizes as they are: what a model has that knows nothing of loops."""
    plain = [i for i, name in enumerate(COLUMNS) if name not in DERIVED]  # no shares either
    return rows.x[:, plain]


@dataclass(frozen=True)
class Verdict:
    """Out-of-fold predictions of the model, and what was found."""

    seconds: F64
    order: F64
    report: dict[str, object]


def evaluate(
    rows: Rows, folds: I64, text_features: F64 | None, say: Callable[[str], None]
) -> Verdict:
    """All figures of `nybble cost eval`. text_features: n-grams of tokens of every row, or None."""
    judge = Judge(rows)
    say("training on all folds but one, in turn")
    held = out_of_fold(rows, folds[rows.owner])
    seconds, order = held.seconds, held.order(judge.places)
    report: dict[str, object] = dict(judge.figures(Predicted(order, seconds)))
    report["coverage"] = coverage(rows, folds, seconds)
    say("what is out of distribution")
    report["ood_auroc"] = ood_auroc(rows, folds)
    say("baselines")
    ceiling = np.concatenate([group.halves[:, 0] for group in rows.groups])
    baselines: dict[str, Predicted] = {
        "random": shuffled(rows),
        "roofline": by_roofline(rows),
        "analytic": Predicted(rows.analytic, rows.analytic),
        "calibrated": Predicted(held.base, held.base),
        "config_only": learned_on(rows, folds, config_only(rows)),
        "ceiling": Predicted(ceiling, ceiling),
    }
    if text_features is not None:
        baselines["tokens"] = learned_on(rows, folds, text_features)
    report["baselines"] = {name: judge.figures(one) for name, one in baselines.items()}
    report["by_family"] = by_family(rows, seconds)
    report |= {
        "measurements": len(rows.seconds),
        "workloads": len(rows.groups),
        "problems": len({group.problem for group in rows.groups}),
        "judged_workloads": len(judge.judged),
    }
    return Verdict(seconds, order, report)


def by_family(rows: Rows, seconds: F64) -> dict[str, dict[str, float]]:
    """Family -> error of the model and of the analytic time, in per cent, and rows."""
    named = np.array(rows.families)
    found: dict[str, dict[str, float]] = {}
    for family in sorted(set(rows.families)):
        own = named == family
        found[family] = {
            "rows": float(own.sum()),
            "mape": float(100 * np.abs(seconds[own] / rows.seconds[own] - 1).mean()),
            "analytic_mape": float(100 * np.abs(rows.analytic[own] / rows.seconds[own] - 1).mean()),
        }
    return found


def coverage(rows: Rows, folds: I64, seconds: F64) -> dict[str, float]:
    """Family -> share of the rows whose time is in its interval, calibrated on the other folds."""
    errors, named = np.log(rows.seconds / seconds), np.array(rows.families)
    row_folds = folds[rows.owner]
    inside = np.zeros(len(errors), np.bool_)
    for fold in sorted(set(folds.tolist())):
        held = row_folds == fold
        widths = half_widths(errors[~held], named[~held].tolist())
        allowed = np.array([widths.get(name, np.inf) for name in named[held]])
        inside[held] = np.abs(errors[held]) <= allowed
    families = sorted(set(rows.families))
    return {name: float(100 * inside[named == name].mean()) for name in families}


def ood_auroc(rows: Rows, folds: I64) -> float:
    """How well novelty tells workloads of a family that was not seen from unseen problems of one
    that was: the area under the curve, 0.5 for chance. Families are left out in turn."""
    families = sorted(set(rows.families))
    areas: list[float] = []
    for number, family in enumerate(families):
        fold = number % (int(folds.max()) + 1)
        known = [
            group
            for group, own in zip(rows.groups, folds, strict=True)
            if own != fold and all(facts.family != family for facts in group.facts)
        ]
        if len(known) < 2:
            continue
        novelty = novelty_of(known)
        seen: list[float] = []
        strange: list[float] = []
        for group, own in zip(rows.groups, folds, strict=True):
            for facts in {id(one): one for one in group.facts}.values():
                if facts.family == family:
                    strange.append(novelty.score(facts, group.call))
                elif own == fold and any(
                    facts.family == other.family for one in known for other in one.facts[:1]
                ):
                    seen.append(novelty.score(facts, group.call))
        if seen and strange:
            areas.append(auroc(np.array(seen), np.array(strange)))
    return float(np.mean(areas)) if areas else float("nan")


def auroc(low: F64, high: F64) -> float:
    """The chance that one of `high` is above one of `low`; ties count half."""
    above = (high[:, None] > low[None]).mean() + 0.5 * (high[:, None] == low[None]).mean()
    return float(above)


def as_json(report: Mapping[str, object]) -> dict[str, object]:
    """The report with numbers rounded, NaN as None."""

    def plain(value: object) -> object:
        if isinstance(value, Mapping):
            return {str(key): plain(one) for key, one in value.items()}
        if isinstance(value, float):
            return None if np.isnan(value) else round(value, 4)
        return value

    return {key: plain(value) for key, value in report.items()}
