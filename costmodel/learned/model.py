"""The learned cost model: analytic time times a learned factor, a ranking, intervals, and doubt.

What a prediction is made of:

- the analytic terms of a schedule (`features.estimate`) with rates fitted to the machine
  (`calibration`), and the logarithm of the factor that they are off by, which trees have learned;
- an order: by time, and the REFINED fastest by the mean of their ranks by time and by a score of
  LambdaMART, which knows nothing of times and tells the best ones better apart;
- a 90% interval by split conformal prediction (Lei et al., JASA 113(523), 2018), per family;
- `source`: "learned"; or "analytic" where the workload is far from all that was seen. Then the time
  is that of the terms alone, and candidates are ordered by the written-down terms times the root of
  the factor that trees say which know no family ("strange"): how loops and registers go together is
  somewhat alike in all of them. Or "learned for" another level than what is asked about: other
  instructions and registers make another order, which is good enough to say what to measure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nybble.costmodel.features.estimate import TERMS, Terms, terms_of
from nybble.costmodel.features.facts import Facts
from nybble.costmodel.features.table import COLUMNS, Call, derived, sizes_of, table_of
from nybble.costmodel.learned.boosting import grown, said
from nybble.costmodel.learned.calibration import Calibration, kind_of
from nybble.costmodel.learned.novelty import Novelty
from nybble.costmodel.targets.target import Target

if TYPE_CHECKING:
    from lightgbm import Booster

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Schedule = Mapping[str, int]
LEARNED, ANALYTIC = "learned", "analytic"
COUNTS: Mapping[str, tuple[str, ...]] = {
    "instructions": ("instructions",),
    "spills": ("spills", "reloads"),
    "registers": ("registers",),
}
"""What is predicted of the compiled code -> the counts of `backends.cpu.object_code` that it sums
up: a spill is a vector register that goes to the stack or comes back."""
INPUTS = (*COLUMNS, *(f"share_{name}" for name in TERMS))
"""What trees read."""
TREES = ("residual", "order", "strange", *COUNTS)
"""The names of all trees."""
REFINED = 32
"""Of the fastest candidates, how many are ordered more finely."""
TRUST = 0.5
"""What a factor's logarithm counts that trees say of a family that they have not seen."""
UNKNOWN_WIDTH = 2.0
"""Half the width of the analytic interval of a family without measurements, as a logarithm."""


@dataclass(frozen=True)
class Prediction:
    """For each schedule: seconds and their interval, and the analytic terms.

    order: places of the schedules, the best first. source: see the module's text. novelty: see
    `Novelty`; above 1 the source is analytic.
    """

    seconds: F64
    low: F64
    high: F64
    order: I64
    source: str
    novelty: float
    terms: Terms

    @property
    def decides(self) -> bool:
        """Whether it is of the machine and of the like of the workload that was asked about, so
        that something may be chosen by it alone."""
        return self.source == LEARNED


def inputs(
    facts: Facts, call: Call, options: Sequence[Schedule], target: Target
) -> tuple[F64, Terms]:
    """Rows of features, f64 [len(options), len(INPUTS)], and the analytic terms."""
    sizes = sizes_of(options)
    columns = derived(facts, call, sizes)
    parts = terms_of(facts, columns, target)
    matrix = parts.matrix()
    shares = matrix / matrix.sum(axis=1, keepdims=True)
    return np.hstack([table_of(facts, call, sizes, columns), shares]), parts


@dataclass(frozen=True)
class CostModel:
    """texts: name of TREES -> trees. calibration: of the terms.
    widths: family -> half the width of the interval of log(seconds), learned; analytic_widths: the
    same without trees. card: where the model is from, for people.
    """

    texts: Mapping[str, str] = field(repr=False)
    calibration: Calibration
    widths: Mapping[str, float]
    analytic_widths: Mapping[str, float]
    novelty: Novelty = field(repr=False)
    card: Mapping[str, object] = field(repr=False)

    @cached_property
    def boosters(self) -> "Mapping[str, Booster]":
        """The trees, ready to predict."""
        return {name: grown(text) for name, text in self.texts.items()}

    def predict(
        self, facts: Facts, call: Call, options: Sequence[Schedule], target: Target
    ) -> Prediction:
        """What some schedules of a kernel cost."""
        x, parts = inputs(facts, call, options, target)
        novelty = self.novelty.score(facts, call)
        kind = kind_of(facts.family, call.tokens)
        base = self.calibration.seconds(kind, parts.matrix(), parts.total())
        if novelty > 1.0:
            width = self.analytic_widths.get(facts.family, UNKNOWN_WIDTH)
            guess = parts.total() * np.exp(TRUST * self.raw("strange", x))
            seconds, order, source = base, np.argsort(guess, kind="stable"), ANALYTIC
        else:
            width = self.widths.get(facts.family, UNKNOWN_WIDTH)
            seconds = base * np.exp(self.raw("residual", x))
            order = ordered(seconds, lambda few: self.raw("order", x[few]))
            source = LEARNED if self.is_of(target) else f"{LEARNED} for {self.level}"
        spread = float(np.exp(width))
        low, high = seconds / spread, seconds * spread
        return Prediction(seconds, low, high, order, source, novelty, parts)

    @property
    def level(self) -> str:
        """The instruction-set level of the code that was measured."""
        return str(self.card.get("level", "a level that it does not tell"))

    def is_of(self, target: Target) -> bool:
        """Whether it was learned from code of a target's level."""
        return self.level in target.levels

    def knows(self, facts: Facts, call: Call, target: Target) -> bool:
        """Whether the like of a workload was measured, in code of a target's level."""
        return self.is_of(target) and self.novelty.score(facts, call) <= 1.0

    def raw(self, name: str, x: F64) -> F64:
        """What some trees say of rows of features."""
        return said(self.boosters[name], x)

    def counts(
        self, facts: Facts, call: Call, options: Sequence[Schedule], target: Target
    ) -> dict[str, F64]:
        """Predicted counts of the compiled code."""
        x, _ = inputs(facts, call, options, target)
        return {name: np.expm1(self.raw(name, x)) for name in COUNTS}

    def factors(
        self, facts: Facts, call: Call, schedule: Schedule, target: Target
    ) -> list[tuple[str, float]]:
        """Feature -> share of the learned factor's logarithm (SHAP), the largest first."""
        x, _ = inputs(facts, call, [schedule], target)
        found = self.boosters["residual"].predict(x, pred_contrib=True, num_threads=1)
        shares = np.asarray(found, np.float64)[0, :-1]
        return sorted(zip(INPUTS, map(float, shares), strict=True), key=lambda one: -abs(one[1]))


def ordered(seconds: F64, score: Callable[[I64], F64]) -> I64:
    """Places of candidates, the best first.

    score: of the candidates at some places, greater for faster ones; asked for the REFINED fastest.
    """
    by_time = np.argsort(seconds, kind="stable")
    few = by_time[:REFINED]
    mixed = 2.0 * np.arange(len(few)) + ranks(-score(few))
    return np.concatenate([few[np.argsort(mixed, kind="stable")], by_time[REFINED:]])


def ranks(values: F64) -> F64:
    """0 for the least, 1 for the next, ..; the earlier of equal ones first."""
    found = np.empty(len(values))
    found[np.argsort(values, kind="stable")] = np.arange(len(values))
    return found
