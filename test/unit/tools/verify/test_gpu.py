"""`nybble verify --target cuda`: cases follow from the seed, and what is wrong is found."""

import json

import numpy as np
import pytest

from nybble.tools.verify import gpu
from nybble.tools.verify.cases import MISFIT
from nybble.tools.verify.gpu import GpuDraw, report, run_case

DRAW = GpuDraw(3, ("w4g64", "q4_k", "f16"), ("sm_80", "sm_90a"))


def test_cases_follow_from_the_seed():
    cases = [DRAW.case(number) for number in range(60)]
    assert cases == [DRAW.case(number) for number in range(60)]
    assert cases != [GpuDraw(4, DRAW.specs, DRAW.archs).case(number) for number in range(60)]
    assert {one.arch for one in cases} == {"sm_80", "sm_90a"}
    assert {one.output for one in cases} == {"f16", "bf16", "f32"}
    assert {one.case.tokens > 1 for one in cases} == {True, False}
    misfits = [one for one in cases if one.case.kernel.dataflow == MISFIT]
    assert misfits
    assert all(run_case((DRAW, one.case.number)).refusal for one in misfits)


def test_what_has_no_kernel_is_counted_by_reason():
    outcomes = [run_case((DRAW, number)) for number in (2, 5)]
    found = report(DRAW, outcomes)
    assert found["refused"] == 2
    assert found["reasons"] == {"'f16' on a GPU: it has no code per weight": 2}
    assert found["worst"] is None


def test_the_command_reports(run_nybble):
    given = ["verify", "--target", "cuda:sm_80,cuda:sm_90a", "--formats", "w4g64,nf4"]
    outcome = run_nybble(*given, "--cases", "4", "--seed", "3", "--jobs", "1", "--json", "-")
    assert outcome.code == 0, outcome.out + outcome.err
    found = json.loads(outcome.out)
    assert (found["cases"], found["failed"], found["refused"]) == (4, 0, 0)
    assert 0 < found["worst"]["error"] <= 1
    assert found["target"] == "cuda:sm_80,cuda:sm_90a"


def test_a_wrong_weight_is_found(monkeypatch, run_nybble):
    # what is judged has another code than what was packed
    monkeypatch.setattr(
        gpu, "judged", lambda drawn, data, x, y: _judged(drawn, _flipped(data), x, y)
    )
    outcome = run_nybble(
        "verify",
        "--target",
        "cuda:sm_80",
        "--formats",
        "w4g64",
        "--cases",
        "1",
        "--jobs",
        "1",
        "--seed",
        "1",
    )
    assert outcome.code == 1
    assert "is right" in outcome.out


_judged = gpu.judged


def _flipped(data):
    """The data with one other code in its weight."""
    weight = data.weights[0]
    weight.codes[0, 0] ^= 1
    return data


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_result_that_is_not_finite_is_a_fault(value):
    drawn = DRAW.case(0)
    data = gpu.make(drawn.case, DRAW.seed)
    y = np.full((drawn.case.tokens, drawn.case.kernel.rows), value)
    found = gpu.judged(drawn, data, data.x, y)
    assert found.fault == "a result is not finite"


def test_targets_of_several_kinds(run_nybble):
    outcome = run_nybble("verify", "--target", "cpu,cuda:sm_80")
    assert outcome.code == 2
    assert "targets of several kinds: cpu,cuda:sm_80" in outcome.err
    outcome = run_nybble("verify", "--target", "cuda:sm_80", "--isa", "x86-64-v3")
    assert outcome.code == 2
    assert "--isa with target cuda:sm_80" in outcome.err
