"""The schedule of a kernel that a cost model likes best, among all that are legal.

Up to ENUMERATED candidates are all predicted; of more, an evolution over predictions finds good
ones: a population of random candidates, of which the better half has children that differ in a
size or mix two parents. The lowering's own choice and an incumbent are always candidates, and the
incumbent stays unless another is predicted to be MARGIN faster, in calls of every size that the
kernel may get, and by more than starting a kernel takes, below which a model shows no gain. So one
that is unsure changes nothing, and what is gained for some prompts is not lost for others. Where
the workload is far from all that the model has seen, or the model is of another level of
instructions, nothing changes either; `order` still says what is worth measuring.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from nybble.costmodel.features.facts import Facts
from nybble.costmodel.features.table import Call
from nybble.costmodel.learned.model import ANALYTIC, CostModel, Prediction
from nybble.costmodel.targets.target import Target

ENUMERATED = 5000
MARGIN = 0.05
POPULATION, GENERATIONS = 512, 6
REFINED = 64
"""Of the best candidates, how many are asked about in all calls."""
Schedule = dict[str, int]


class Choices(Protocol):
    """What a kernel's lowering leaves to a schedule; see `backends.cpu.schedule_space`."""

    def settle(self, asked: Mapping[str, int]) -> Schedule:
        """Every size: as asked for, else the lowering's own; raises for an illegal one."""
        ...

    def candidates(self) -> Iterator[Schedule]:
        """All legal choices."""
        ...

    def values(self) -> dict[str, list[int]]:
        """Name of a size -> its legal values."""
        ...

    def allows(self, chosen: Mapping[str, int]) -> bool:
        """Whether legal values of all sizes go together."""
        ...


@dataclass(frozen=True)
class Question:
    """A kernel that wants a schedule. incumbent: sizes that it has now, empty for the default.

    call: that candidates are ordered for. others: calls in which the choice must be faster too.
    fixed: sizes that stay as they are, for the model knows nothing of them.
    """

    facts: Facts
    call: Call
    choices: Choices
    incumbent: Mapping[str, int]
    others: Sequence[Call] = ()
    fixed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Answer:
    """Candidates, the best first, and which one is taken.

    order: places in `candidates`. taken, incumbent: places of the choice and of what it replaces.
    """

    candidates: Sequence[Schedule]
    prediction: Prediction
    order: Sequence[int]
    taken: int
    incumbent: int

    @property
    def schedule(self) -> Schedule:
        """The choice."""
        return self.candidates[self.taken]

    @property
    def changed(self) -> bool:
        """Whether the choice is another than the incumbent."""
        return self.taken != self.incumbent

    @property
    def gain(self) -> float:
        """What the choice is predicted to take less, of the time of the incumbent."""
        seconds = self.prediction.seconds
        return float(1 - seconds[self.taken] / seconds[self.incumbent])

    @property
    def runner_up(self) -> int:
        """The best candidate that was not taken; the choice itself where there is no other."""
        return next((one for one in self.order if one != self.taken), self.taken)

    def because(self) -> str:
        """Why, in a sentence."""
        found, before = self.prediction, self.incumbent
        microseconds = found.seconds * 1e6
        if found.source == ANALYTIC:
            return (
                f"kept: {found.novelty:.1f} times as far from what was measured as anything there"
            )
        if not found.decides:
            return f"kept: {found.source}, which tells what to measure and decides nothing here"
        told = f"{microseconds[self.taken]:.1f} us predicted"
        if self.changed:
            told += f", {microseconds[before]:.1f} us as it was"
        return f"{told}, of {len(self.candidates)} candidates; {self._bottleneck()}"

    def _bottleneck(self) -> str:
        return f"mostly {self.prediction.terms.bottleneck(self.taken)}"


def search(question: Question, model: CostModel, target: Target, seed: int = 0) -> Answer:
    """The best schedule by the model alone: equal questions have equal answers."""
    incumbent = question.choices.settle(question.incumbent)
    default = question.choices.settle({})
    found = [*islice(question.choices.candidates(), ENUMERATED + 1)]
    if len(found) > ENUMERATED:
        found = evolve(question, model, target, seed)
    able = [
        one
        for one in (default, *found)
        if one != incumbent and all(one[name] == incumbent[name] for name in question.fixed)
    ]
    candidates = [incumbent, *able]
    return rank(question, candidates, model, target)


def rank(
    question: Question, candidates: Sequence[Schedule], model: CostModel, target: Target
) -> Answer:
    """The candidates in order; the first is the incumbent."""
    prediction = model.predict(question.facts, question.call, candidates, target)
    order = [int(one) for one in prediction.order]
    taken = 0
    if prediction.decides:
        few = order[: order.index(0)][:REFINED]
        taken = _first_faster(question, candidates, few, prediction, model, target)
    return Answer(candidates, prediction, order, taken, 0)


def _first_faster(
    question: Question,
    candidates: Sequence[Schedule],
    few: Sequence[int],
    prediction: Prediction,
    model: CostModel,
    target: Target,
) -> int:
    """The first of some places whose candidate is MARGIN faster than the incumbent, which is at
    place 0, in every call, and in the first by more than a launch takes; 0 if there is none."""
    most = min((1 - MARGIN) * prediction.seconds[0], prediction.seconds[0] - target.launch.value)
    able = [one for one in few if prediction.seconds[one] < most]
    for call in question.others if able else ():
        asked = [candidates[one] for one in (0, *able)]
        seconds = model.predict(question.facts, call, asked, target).seconds
        able = [
            one
            for one, taken in zip(able, seconds[1:], strict=True)
            if taken < (1 - MARGIN) * seconds[0]
        ]
    return able[0] if able else 0


def evolve(question: Question, model: CostModel, target: Target, seed: int) -> list[Schedule]:
    """Good candidates of a space that is too large to enumerate."""
    source = random.Random(seed)
    choices, values = question.choices, question.choices.values()
    population = [choices.settle({})]
    while len(population) < POPULATION:
        one = {name: source.choice(legal) for name, legal in values.items()}
        if choices.allows(one):
            population.append(one)
    for _ in range(GENERATIONS):
        prediction = model.predict(question.facts, question.call, population, target)
        parents = [population[place] for place in prediction.order[: POPULATION // 2]]
        known = {tuple(one.items()) for one in parents}
        children: list[Schedule] = []
        for _ in range(8 * POPULATION):
            child = _child(source.choice(parents), source.choice(parents), values, source)
            if tuple(child.items()) not in known and choices.allows(child):
                known.add(tuple(child.items()))
                children.append(child)
            if len(children) == POPULATION // 2:
                break
        population = parents + children
    return population


def _child(
    mother: Schedule, father: Schedule, values: Mapping[str, list[int]], source: random.Random
) -> Schedule:
    """A mix of two candidates, with one size drawn anew."""
    child = {name: source.choice((mother[name], father[name])) for name in values}
    changed = source.choice([*values])
    return {**child, changed: source.choice(values[changed])}
