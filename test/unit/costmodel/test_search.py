"""Search: what is a candidate, what is taken, and that equal questions have equal answers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from nybble.costmodel import search as module
from nybble.costmodel.features.estimate import Terms
from nybble.costmodel.features.facts import Facts, ProductSketch
from nybble.costmodel.features.table import Call
from nybble.costmodel.learned.model import Prediction
from nybble.costmodel.search import Answer, Question, search
from nybble.costmodel.targets.reader import find_target
from nybble.dialects.errors import NybbleError

TARGET = find_target("cpu-avx2")
FACTS = ProductSketch("int_dot", "q4_0", (64,), 64, 1, 32).facts()


@dataclass(frozen=True)
class Grid:
    """Choices x, y of 0 .. size - 1, where x = y is not allowed but for the default."""

    size: int

    def settle(self, asked: Mapping[str, int]) -> dict[str, int]:
        """See Choices."""
        chosen = {"x": 0, "y": 0, **asked}
        if not all(0 <= value < self.size for value in chosen.values()):
            raise NybbleError("outside")
        return chosen

    def candidates(self) -> Iterator[dict[str, int]]:
        """See Choices."""
        for x in range(self.size):
            for y in range(self.size):
                if self.allows({"x": x, "y": y}):
                    yield {"x": x, "y": y}

    def values(self) -> dict[str, list[int]]:
        """See Choices."""
        return {name: [*range(self.size)] for name in "xy"}

    def allows(self, chosen: Mapping[str, int]) -> bool:
        """See Choices."""
        return chosen["x"] != chosen["y"] or chosen["x"] == 0


@dataclass
class Bowl:
    """A model for which (goal, goal - 1) is best."""

    goal: int
    source: str = "learned"
    least: float = 1.0
    step: float = 1.0
    asked: int = 0

    def predict(
        self, facts: Facts, call: Call, options: list[dict[str, int]], target: object
    ) -> Prediction:
        """See CostModel."""
        self.asked += len(options)
        far = [abs(one["x"] - self.goal) + abs(one["y"] - self.goal + 1) for one in options]
        seconds = self.least + self.step * np.array(far, np.float64)
        terms = Terms({"multiply": seconds, "memory": seconds * 0})
        order = np.argsort(seconds, kind="stable")
        return Prediction(seconds, seconds, seconds, order, self.source, 0.5, terms)


def ask(grid: Grid, model: Bowl, incumbent: dict[str, int]) -> Answer:
    """What a search says."""
    return search(Question(FACTS, Call(1), grid, incumbent), model, TARGET)  # type: ignore[arg-type]


def test_all_candidates_of_a_small_space_are_asked_about():
    found = ask(Grid(9), Bowl(7), {})
    assert found.schedule == {"x": 7, "y": 6}
    assert len(found.candidates) == 9 * 9 - 8
    assert found.changed
    assert found.candidates[found.runner_up] in ({"x": 7, "y": 5}, {"x": 8, "y": 6})
    assert "predicted" in found.because()


def test_the_default_and_the_incumbent_are_candidates():
    found = ask(Grid(9), Bowl(7), {"x": 3, "y": 3})
    assert found.candidates[found.incumbent] == {"x": 3, "y": 3}
    assert {"x": 0, "y": 0} in found.candidates


def test_an_incumbent_stays_unless_another_is_clearly_faster():
    found = ask(Grid(9), Bowl(7, least=100.0), {"x": 7, "y": 5})
    assert not found.changed
    assert found.order[0] != found.taken


@pytest.mark.parametrize(("launches", "changes"), [(0.9, False), (1.1, True)])
def test_what_gains_less_than_a_launch_is_left_alone(launches: float, changes: bool):
    step = TARGET.launch.value * launches / 3  # the default is three steps from the best
    found = ask(Grid(4), Bowl(2, least=step, step=step), {})
    assert found.candidates[found.order[0]] == {"x": 2, "y": 1}
    assert found.changed == changes


def test_a_model_of_another_level_orders_and_decides_nothing():
    found = ask(Grid(9), Bowl(7, source="learned for x86-64-v3"), {})
    assert found.schedule == {"x": 0, "y": 0}
    assert found.candidates[found.order[0]] == {"x": 7, "y": 6}
    assert found.because().startswith("kept: learned for x86-64-v3")


def test_nothing_changes_far_from_what_was_measured():
    found = ask(Grid(9), Bowl(7, source="analytic"), {})
    assert found.schedule == {"x": 0, "y": 0}
    assert found.because().startswith("kept")


def test_a_large_space_evolves(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ENUMERATED", 100)
    monkeypatch.setattr(module, "POPULATION", 64)
    model = Bowl(70)
    found = ask(Grid(100), model, {})
    assert model.asked < 64 * 8
    assert abs(found.schedule["x"] - 70) + abs(found.schedule["y"] - 69) <= 6
    assert ask(Grid(100), Bowl(70), {}).schedule == found.schedule


def test_an_illegal_incumbent_is_refused():
    with pytest.raises(NybbleError, match="outside"):
        ask(Grid(9), Bowl(7), {"x": 11})


@dataclass
class Fickle(Bowl):
    """A model for which what is best for one token is worst for many."""

    def predict(
        self, facts: Facts, call: Call, options: list[dict[str, int]], target: object
    ) -> Prediction:
        """See CostModel."""
        found = super().predict(facts, call, options, target)
        if call.tokens == 1:
            return found
        seconds = 100.0 - found.seconds
        return Prediction(seconds, seconds, seconds, found.order, "learned", 0.5, found.terms)


def test_what_is_worse_in_another_call_is_not_taken():
    alone = Question(FACTS, Call(1), Grid(8), {})
    both = Question(FACTS, Call(1), Grid(8), {}, [Call(64)])
    assert search(alone, Fickle(5), TARGET).changed
    assert not search(both, Fickle(5), TARGET).changed
    assert search(both, Bowl(5), TARGET).changed


def test_sizes_that_the_model_does_not_know_stay():
    free = search(Question(FACTS, Call(1), Grid(8), {"x": 1, "y": 0}), Bowl(5), TARGET)
    assert free.schedule == {"x": 5, "y": 4}
    held = Question(FACTS, Call(1), Grid(8), {"x": 1, "y": 0}, fixed=frozenset("y"))
    assert search(held, Bowl(5), TARGET).schedule["y"] == 0
