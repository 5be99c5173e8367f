"""How far a workload is from those that a model has seen: the distance to the nearest of them.

Workloads are points of some standardised numbers (sizes as logarithms) and a family; another family
is far away whatever its sizes. The scale is that of the training set itself: 1 is the distance that
all but a few of its problems have to the nearest other one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.costmodel.features.facts import Facts
from nybble.costmodel.features.table import FAMILIES, Call

F64 = npt.NDArray[np.float64]
SIZES = ("rows", "cols", "heads", "kv_heads", "width", "activation_group", "weight_group")
PLAIN = ("bits", "bits_per_weight", "digits", "on_a_line", "has_zero", "special", "bytes")
STRANGE = 8.0
"""Distance between families."""
QUANTILE = 0.98
LEAST_SPREAD = 0.35
"""Of a number that hardly varies among what was seen."""


def place(facts: Facts, call: Call) -> F64:
    """The point of a workload: its numbers, then its family."""
    numbers = {**facts.numbers, "rows": facts.numbers.get("rows", 0.0) / call.shares}
    sizes = [np.log2(1.0 + numbers.get(name, 0.0)) for name in SIZES]
    plain = [facts.numbers.get(name, 0.0) for name in PLAIN]
    calls = [np.log2(1.0 + call.tokens), np.log2(1.0 + call.cached), float(call.tokens > 1)]
    family = [float(facts.family == name) for name in FAMILIES]
    return np.array([*sizes, *plain, *calls, *family])


@dataclass(frozen=True)
class Novelty:
    """centre, spread: of each number. seen: f64 [workloads, numbers], standardised. unit: see the
    module's text."""

    centre: F64
    spread: F64
    seen: F64
    unit: float

    @staticmethod
    def of(places: Sequence[F64], problems: Sequence[str]) -> "Novelty":
        """That of a training set; places of one problem are no neighbours of each other."""
        raw = np.array(places)
        count = raw.shape[1] - len(FAMILIES)
        centre, spread = raw.mean(axis=0), np.maximum(raw.std(axis=0), LEAST_SPREAD)
        centre[count:], spread[count:] = 0.0, 1.0 / STRANGE
        seen = (raw - centre) / spread
        own = np.array(problems)
        nearest = [
            _nearest(seen[own != problem], seen[own == problem])
            for problem in dict.fromkeys(problems)
            if (own != problem).any()
        ]
        found = np.concatenate(nearest) if nearest else np.ones(1)
        usual = found[found < STRANGE]
        unit = float(np.quantile(usual, QUANTILE)) if len(usual) else 1.0
        return Novelty(centre, spread, np.unique(seen, axis=0), max(unit, 1e-6))

    def score(self, facts: Facts, call: Call) -> float:
        """The distance to the nearest workload that was seen; above 1 is out of distribution."""
        point = (place(facts, call) - self.centre) / self.spread
        return float(_nearest(self.seen, point[None])[0] / self.unit)


def _nearest(seen: F64, points: F64) -> F64:
    return np.array([np.sqrt(((seen - one) ** 2).sum(axis=1).min()) for one in points])
