"""What a model says of families, formats and machines that it has not seen, on made-up times."""

from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from nybble.costmodel.data.dataset import Group, Record
from nybble.costmodel.data.measurement import Stand
from nybble.costmodel.features.estimate import terms
from nybble.costmodel.features.facts import ProductSketch
from nybble.costmodel.features.table import Call
from nybble.costmodel.learned.training import Rows
from nybble.costmodel.learned.transfer import (
    ADAPTED,
    adapted,
    chosen,
    figures,
    held_out,
    left_out,
    moved,
)
from nybble.costmodel.targets.reader import find_target
from nybble.dialects.errors import NybbleError
from nybble.tools.cost.learning import Measured, judge_transfer

TARGET = find_target("cpu-avx2")
NAMES = ("steps", "subtiles", "runs", "prefetch")
OPTIONS = [
    dict(zip(NAMES, one, strict=True)) for one in product((1, 2, 4), (1, 2, 4), (1, 2), (0, 4096))
]
SHAPES = ((256, 512), (512, 256), (768, 1024), (1024, 768), (320, 2048), (576, 1536))
SLOW, FAST = np.linspace(0.5, 2.0, 10), np.linspace(3.0, 0.7, 10)
"""Rates of two machines: factors of the analytic terms."""


def group(spec: str, shape: tuple[int, int], factors: np.ndarray) -> Group:
    """A product by one dataflow, whose times are the analytic terms times a machine's factors and
    something that only trees can learn."""
    facts = ProductSketch("int_dot", spec, (shape[0],), shape[1], 1, 32).facts()
    found = terms(facts, Call(1), OPTIONS, TARGET).matrix()
    bent = np.array([1.3 if one["steps"] == 2 else 1.0 for one in OPTIONS])
    seconds = (found @ factors + 1e-7) * bent
    halves = np.stack([seconds, seconds], axis=1)
    return Group(facts.problem, Call(1), [facts] * len(OPTIONS), OPTIONS, seconds, halves, [])


def rows_of(factors: np.ndarray) -> Rows:
    return Rows([group(f, s, factors) for f in ("q4_0", "q8_0") for s in SHAPES], TARGET)


@pytest.fixture(scope="module")
def slow() -> Rows:
    return rows_of(SLOW)


def test_a_format_that_was_not_seen(slow):
    found = held_out(slow, "format", lambda _: None)
    assert set(found["by_format"]) == {"q4_0", "q8_0"}
    assert found["never_worse"] is True
    assert found["mape"] < found["baselines"]["analytic"]["mape"]
    assert found["by_format"]["q4_0"]["rows"] == len(SHAPES) * len(OPTIONS)


def test_one_family_alone(slow):
    with pytest.raises(NybbleError, match="all measurements are of family int_dot"):
        held_out(slow, "family", lambda _: None)


def test_a_model_moves_with_few_measurements(slow):
    other = rows_of(FAST)
    few = chosen(other, 40)
    assert few.sum() == 40
    seconds = adapted(other, slow, few)
    assert figures(other, ~few, seconds)["mape"] < 10
    stayed = figures(other, ~few, slow.calibrated(_rates(slow)))
    assert stayed["mape"] > 30
    found = moved(other, slow, lambda _: None)
    assert found["adapted_with"] == ADAPTED
    assert found["within_3_points"] is True


def test_rates_are_fitted_anew_to_few_measurements(slow):
    """A factor for the kind and trees of ten measurements alone would leave 22%."""
    other = rows_of(FAST)
    few = chosen(other, 10)
    assert figures(other, ~few, adapted(other, slow, few))["mape"] < 15


def _rates(rows: Rows):
    from nybble.costmodel.learned.calibration import calibrate

    return calibrate(rows.kinds, rows.terms, rows.seconds)


def test_a_kind_with_few_measurements_takes_their_median(slow):
    other = rows_of(3 * SLOW)
    few = chosen(other, 10)
    assert figures(other, ~few, adapted(other, slow, few))["mape"] < 15


def test_the_other_machine_must_be_another(slow):
    data = Measured([Record("", 1, 1, 0, "{}", (1.0, 1.0), "{}")][:0], Stand("zen 3", "one"))
    with pytest.raises(NybbleError, match="one machine alone was measured: zen 3"):
        judge_transfer(data, "machine", None, lambda _: None)
    with pytest.raises(NybbleError, match="both files were measured on zen 3"):
        judge_transfer(data, "machine", replace(data), lambda _: None)


def test_a_family_that_was_not_seen_is_ordered_by_what_loops_have_in_common(slow):
    others = [
        replace(one, facts=[replace(facts, family="lut") for facts in one.facts], problem="lut")
        for one in slow.groups[:6]
    ]
    rows = Rows([*slow.groups[6:], *others], TARGET)
    held = np.array([name == "lut" for name in rows.families])
    model = left_out(rows, held)
    assert not model.learned[held].any()
    plain = figures(rows, held, model.seconds)
    better = figures(rows, held, model.seconds, model.order)
    assert better["mape"] == plain["mape"]
    assert better["tau"] != plain["tau"]


def test_a_kind_with_four_times_as_many_rows_is_measured_twice_as_often():
    kinds = ["int_dot/many"] * 400 + ["lut/one"] * 100
    rows = SimpleNamespace(kinds=kinds, seconds=np.ones(len(kinds)))
    few = chosen(rows, 60)  # type: ignore[arg-type]
    assert few.sum() == 60
    assert few[:400].sum() == 40
