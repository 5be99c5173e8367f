"""How good a model is on what it has never seen: a family, a number format, a machine.

Each family or format is left out in turn: a model of all other rows says what it would say of it,
with its own doubt. Where `Novelty` finds a workload too far from all that was seen, that is the
analytic time, and an order by trees that know no family; elsewhere trees correct the time.

A model is moved to another machine with few of its measurements: the trees, which know what a
schedule does to a loop, stay; the rates of the analytic terms are fitted anew, half-way, to what
the trees leave, and few small trees learn what is left then (`adapted`). Beside it stands a model
that was trained on all of the other machine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.costmodel.features.facts import Facts
from nybble.costmodel.learned.boosting import Growth, grown, regress, said
from nybble.costmodel.learned.calibration import Calibration, calibrate
from nybble.costmodel.learned.evaluation import Judge, kendall
from nybble.costmodel.learned.model import INPUTS, TRUST
from nybble.costmodel.learned.novelty import Novelty, place
from nybble.costmodel.learned.split import folds_of
from nybble.costmodel.learned.training import (
    IDENTITY,
    Rows,
    fit_strange,
    fit_times,
    out_of_fold,
)
from nybble.dialects.errors import NybbleError

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
FEW = 12
"""Candidates of a workload among the rows left out that a figure about choices counts."""
ADAPTED = 200
"""Measurements of another machine that a model is moved with."""
CORRECTION = Growth(trees=20, leaves=4, rate=0.2)
"""Of the trees that learn from those measurements."""
WITHIN = 3.0
"""Points of error that a moved model may be behind a native one."""


def family_of(facts: Facts) -> str:
    """What `--split family` leaves out together."""
    return facts.family


def format_of(facts: Facts) -> str:
    """What `--split format` leaves out together: products of a format; "" for other kernels."""
    return facts.problem.split(" ")[0] if "weight_group" in facts.numbers else ""


LABELS: Mapping[str, Callable[[Facts], str]] = {"family": family_of, "format": format_of}


@dataclass(frozen=True)
class Said:
    """What a model says of rows that it has not seen. learned: whether trees corrected the time.
    order: what candidates are sorted by."""

    seconds: F64
    learned: Mask
    order: F64


def left_out(rows: Rows, held: Mask) -> Said:
    """What a model of all other rows says of some."""
    base, factor = fit_times(rows, ~held).of(rows)
    known = near(rows, held)
    seconds = np.where(known, base * factor, base)
    guess = rows.analytic * np.exp(TRUST * said(grown(fit_strange(rows, ~held)), rows.x))
    return Said(seconds, known, np.where(known, seconds, guess))


def near(rows: Rows, held: Mask) -> Mask:
    """Which rows of those left out are no further from the others than these from each other."""
    owners = [(facts, group) for group in rows.groups for facts in group.facts]
    seen: dict[tuple[int, str], tuple[F64, str]] = {}
    for (facts, group), wanted in zip(owners, ~held, strict=True):
        if wanted:
            key = id(facts), group.name
            seen.setdefault(key, (place(facts, group.call), group.problem))
    novelty = Novelty.of([one for one, _ in seen.values()], [name for _, name in seen.values()])
    scores: dict[tuple[int, str], float] = {}
    found = np.zeros(len(held), np.bool_)
    for number in np.flatnonzero(held):
        facts, group = owners[number]
        key = id(facts), group.name
        if key not in scores:
            scores[key] = novelty.score(facts, group.call)
        found[number] = scores[key] <= 1.0
    return found


def figures(rows: Rows, held: Mask, seconds: F64, order: F64 | None = None) -> dict[str, float]:
    """mape, tau, top1_regret_mean among the rows left out, in per cent; NaN for no workloads.

    order: what candidates are sorted by, None for the seconds.
    """
    by = seconds if order is None else order
    measured, judge = rows.seconds, Judge(rows)
    places = [own for place in judge.places if len(own := place[held[place]]) >= FEW]
    taus = [kendall(by[own], measured[own]) for own in places]
    regrets = [100 * (measured[own][by[own].argmin()] / measured[own].min() - 1) for own in places]
    error = np.abs(seconds[held] / measured[held] - 1).mean()
    return {
        "mape": float(100 * error),
        "tau": float(np.mean(taus)) if taus else float("nan"),
        "top1_regret_mean": float(np.mean(regrets)) if regrets else float("nan"),
    }


def held_out(rows: Rows, split: str, say: Callable[[str], None]) -> dict[str, object]:
    """Figures of `--split family` and `--split format`; the totals are means over what was left
    out, and never_worse says whether no error is above that of the analytic time."""
    name = LABELS[split]
    labels = np.array([name(facts) for group in rows.groups for facts in group.facts])
    found: dict[str, dict[str, object]] = {}
    for label in sorted({*labels.tolist()} - {""}):
        say(f"leaving out {label}")
        held = labels == label
        if held.all():
            raise NybbleError(f"all measurements are of {split} {label}", accepted="two or more")
        model = left_out(rows, held)
        found[label] = {
            "rows": int(held.sum()),
            "learned": float(100 * model.learned[held].mean()),
            **figures(rows, held, model.seconds, model.order),
            "analytic": figures(rows, held, rows.analytic),
        }
    return {
        "by_" + split: found,
        **_means([*found.values()]),
        "baselines": {"analytic": _means([one["analytic"] for one in found.values()])},
        "never_worse": all(_error(one) <= _error(one["analytic"]) + 1e-9 for one in found.values()),
    }


def _error(found: object) -> float:
    assert isinstance(found, dict)
    return float(found["mape"])


def _means(found: Sequence[object]) -> dict[str, float]:
    names = ("mape", "tau", "top1_regret_mean")
    return {name: float(np.nanmean([one[name] for one in found])) for name in names}  # type: ignore[index]


def chosen(rows: Rows, count: int) -> Mask:
    """Rows to measure on another machine: so many, in a fixed random order; a kind with four times
    as many has twice as many of them."""
    order = np.random.default_rng(0).permutation(len(rows.seconds))
    kinds = np.array(rows.kinds)[order]
    turn = np.zeros(len(order))
    for kind in dict.fromkeys(kinds.tolist()):
        own = kinds == kind
        turn[own] = np.arange(own.sum()) / np.sqrt(own.sum())
    mask = np.zeros(len(order), np.bool_)
    mask[order[np.argsort(turn, kind="stable")[:count]]] = True
    return mask


def adapted(rows: Rows, own: Rows, few: Mask) -> F64:
    """Seconds of every row of another machine: trees of `own`, rates of `few` of the others.

    Rates are the geometric mean of those that fit the few and of those of `own` times a factor for
    each kind; a few small trees then correct what both leave.
    """
    times = fit_times(own, np.ones(len(own.seconds), np.bool_))
    before, factor = times.of(rows)
    named = np.array(rows.kinds)
    rates = calibrate(named[few].tolist(), rows.terms[few], (rows.seconds / factor)[few])
    fitted = rows.calibrated(Calibration({**times.calibration.factors, **rates.factors}))
    scaled = before * _off(rows.seconds / (before * factor), named, few)
    known = np.isin(named, [*rates.factors])
    seconds = np.where(known, np.sqrt(fitted * scaled), scaled) * factor
    rest = np.log(rows.seconds / seconds)[few]
    trees = regress(rows.x[few], rest, CORRECTION, INPUTS, without=IDENTITY)
    return seconds * np.exp(said(trees, rows.x))


def _off(ratios: F64, kinds: npt.NDArray[np.str_], few: Mask) -> F64:
    """The median of each kind's few ratios, as far as it has any; of all few where it has none."""
    found = np.full(len(ratios), np.median(ratios[few]))
    for kind in dict.fromkeys(kinds[few].tolist()):
        found[kinds == kind] = np.median(ratios[few & (kinds == kind)])
    return found


def moved(rows: Rows, own: Rows, say: Callable[[str], None]) -> dict[str, object]:
    """Figures of `--split machine`: of the other machine's rows that were not measured for it."""
    say(f"moving a model with {ADAPTED} measurements")
    few = chosen(rows, ADAPTED)
    seconds = adapted(rows, own, few)
    say("training on the other machine, all folds but one in turn")
    folds = folds_of([group.problem for group in rows.groups])[rows.owner]
    native = out_of_fold(rows, folds, score=False).seconds
    found = {
        name: figures(rows, ~few, one)
        for name, one in (("moved", seconds), ("native", native), ("analytic", rows.analytic))
    }
    return {
        **found["moved"],
        "baselines": {"native": found["native"], "analytic": found["analytic"]},
        "adapted_with": int(few.sum()),
        "measurements": len(rows.seconds),
        "within_3_points": found["moved"]["mape"] <= found["native"]["mape"] + WITHIN,
    }
