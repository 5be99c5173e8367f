"""Costs of dataflows by the learned cost model, in place of the estimates beside each lowering.

What is compared are kernels with the sizes that their lowering takes by itself, on one thread, in
calls of at most `USUAL_TOKENS` tokens; what other kernels do to the activation first is estimated.
A model of another level than that of the code says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nybble.costmodel.features.estimate import CLOCK
from nybble.costmodel.learned.files import read_model, shipped
from nybble.costmodel.learned.model import CostModel
from nybble.costmodel.targets.reader import target_for_level
from nybble.costmodel.targets.target import Target as Machine
from nybble.passes.targets import LEARNED as SHIPPED
from nybble.passes.targets import Product, Target, Verdict
from nybble.passes.tile_kernels import calls_of


@dataclass(frozen=True)
class Learned:
    """Asks a model about the dataflows of a target."""

    model: CostModel
    machine: Machine
    target: Target

    def costs(self, product: Product, verdicts: Sequence[Verdict]) -> Sequence[Verdict] | None:
        """The verdicts with cycles (of CLOCK) that were learned; None unless the model has
        measured the like of all that can compute the product, at this level."""
        found = [one if one.refusal is not None else self._cost(product, one) for one in verdicts]
        known = [one for one in found if one is not None]
        return known if len(known) == len(found) else None

    def _cost(self, product: Product, verdict: Verdict) -> Verdict | None:
        sketch = self.target.sketch(product, verdict.dataflow)
        if sketch is None:
            return None
        call, *_ = calls_of(sketch.facts, product.tokens, 1)
        sizes = sketch.choices.settle({}) if sketch.choices else {}
        said = self.model.predict(sketch.facts, call, [sizes], self.machine)
        if not said.decides:
            return None
        calls = call.shares * product.tokens / call.tokens
        return replace(verdict, cycles=float(said.seconds[0]) * calls * CLOCK + verdict.setup)


def learned_costs(target: Target, isa: str, costs: str = SHIPPED) -> Learned:
    """A model for a target at a level; see `learned_model`."""
    return Learned(learned_model(costs), target_for_level(isa), target)


def learned_model(costs: str) -> CostModel:
    """The model that comes with nybble for "learned", else that of a file.

    Raises ModelFileError for a file that is none.
    """
    return shipped() if costs == SHIPPED else read_model(Path(costs))
