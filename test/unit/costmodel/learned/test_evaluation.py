"""Figures, intervals and splits on small data; and a gate on the recorded measurements."""

from importlib.resources import files

import numpy as np
import pytest

from nybble.costmodel.data.dataset import Group, groups_of
from nybble.costmodel.features.estimate import TERMS
from nybble.costmodel.features.facts import ProductSketch
from nybble.costmodel.features.table import Call
from nybble.costmodel.learned.calibration import calibrate
from nybble.costmodel.learned.evaluation import Judge, Predicted, auroc, kendall
from nybble.costmodel.learned.model import ordered, ranks
from nybble.costmodel.learned.split import FOLDS, fold_of, folds_of, manifest
from nybble.costmodel.learned.training import (
    Rows,
    TrainingError,
    half_widths,
    out_of_fold,
    train,
)
from nybble.costmodel.targets.reader import find_target
from nybble.tools.cost.learning import measured

TARGET = find_target("cpu-avx2")
SECONDS = np.array([3.0, 1.0, 2.0, 1.01])


def _group(seconds: np.ndarray) -> Group:
    facts = ProductSketch("int_dot", "q4_0", (64,), 64, 1, 32).facts()
    options = [{"steps": 1, "subtiles": 1, "runs": 1, "prefetch": i} for i in range(len(seconds))]
    halves = np.stack([seconds, seconds], axis=1)
    code = [{} for _ in options]
    return Group(facts.problem, Call(1), [facts] * len(options), options, seconds, halves, code)


def test_figures():
    judge = Judge(Rows([_group(SECONDS)], TARGET), least=4)
    found = judge.figures(Predicted(np.array([4.0, 3.0, 1.0, 2.0]), SECONDS * 1.1))
    assert found["top1_regret_mean"] == pytest.approx(100.0)
    assert found["top5_regret_mean"] == 0.0
    assert found["trials_to_2pct"] == 2.0
    assert found["mape"] == pytest.approx(10.0)
    perfect = judge.figures(Predicted(SECONDS))
    assert perfect["tau"] == pytest.approx(1.0)
    assert "mape" not in perfect


def test_kendall_and_auroc_know_ties():
    assert kendall(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == -1
    assert kendall(np.ones(3), np.array([3.0, 2, 1])) == 0
    assert auroc(np.array([0.0, 1]), np.array([2.0, 1])) == 0.875


def test_ranks():
    assert ranks(np.array([3.0, 1, 2])).tolist() == [2, 0, 1]


def test_the_fastest_are_ordered_by_their_score_too():
    seconds = np.arange(40.0)
    worse = ordered(seconds, lambda few: -few.astype(float))
    assert worse.tolist() == [*range(40)]
    other = ordered(seconds, lambda few: np.where(few == 1, -99.0, -few))
    assert other[:3].tolist() == [0, 2, 3]
    assert sorted(other[:32].tolist()) == [*range(32)]
    assert other[32:].tolist() == [*range(32, 40)]


def test_intervals_cover_what_they_say():
    errors = np.random.default_rng(0).standard_normal(5000)
    width = half_widths(errors[:2500], ["a"] * 2500)["a"]
    assert abs((np.abs(errors[2500:]) <= width).mean() - 0.9) < 0.02
    assert half_widths(np.array([5.0]), ["b"]) == {"b": 5.0}


def test_rates_are_found_again():
    source = np.random.default_rng(0)
    terms = source.uniform(1e-6, 1e-4, (200, len(TERMS)))
    truth = np.resize([1, 0.5, 0, 2, 0, 0, 3.0], len(TERMS))
    found = calibrate(["a"] * 200, terms, terms @ truth + 2e-6).factors["a"]
    assert np.allclose(found[:-1], truth, atol=0.05)


def test_folds_are_frozen():
    names = [*manifest()]
    assert len(names) >= 20
    assert set(folds_of(names).tolist()) == set(range(FOLDS))
    assert fold_of("a problem of tomorrow") == fold_of("a problem of tomorrow")


def test_too_few_measurements():
    with pytest.raises(TrainingError, match="1 workloads of 1 problems"):
        train([_group(SECONDS)], TARGET, {})


GATE = {"tau": 0.86, "top1_regret_mean": 3.2, "top5_regret_mean": 0.7, "mape": 5.7}
"""What recorded measurements allow, with a little room: a worse model does not pass."""


def test_the_recorded_measurements_are_predicted_as_well_as_ever():
    pytest.importorskip("pyarrow")
    assert files("nybble.costmodel.data").joinpath("cpu_x86_64_v3.parquet").is_file()
    groups = groups_of(measured(None).records)
    rows = Rows(groups, TARGET)
    held = out_of_fold(rows, folds_of([group.problem for group in groups])[rows.owner])
    judge = Judge(rows)
    found = judge.figures(Predicted(held.order(judge.places), held.seconds))
    assert found["tau"] >= GATE["tau"]
    for name in ("top1_regret_mean", "top5_regret_mean", "mape"):
        assert found[name] <= GATE[name], (name, found)
