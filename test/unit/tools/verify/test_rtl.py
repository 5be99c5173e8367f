"""`nybble verify --target fpga-rtl`: cases follow from their number; wrong sums are reported."""

import json
from dataclasses import replace
from importlib.util import find_spec
from shutil import which

import numpy as np
import pytest

from nybble.tools.diagnostics import UsageError
from nybble.tools.target import ChosenTarget, VerifyRequest
from nybble.tools.verify import rtl
from nybble.tools.verify.rtl import DESIGNS, draw, run_cases, run_loops, verify_rtl

TARGET = (ChosenTarget("fpga-rtl", ""),)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    if find_spec("circt") is None or which("verilator") is None:
        pytest.skip("needs CIRCT and verilator")
    return str(tmp_path_factory.mktemp("cache"))


def test_cases_follow_from_their_number():
    one, same, other = draw(5, 14), draw(5, 14), draw(6, 14)
    assert one.report() == same.report() != other.report()
    assert np.array_equal(one.beats.w, same.beats.w)
    assert one.design is DESIGNS[14 % len(DESIGNS)]
    assert {draw(0, number).data for number in range(60)} == {"uniform", "extreme", "zero"}


def test_a_run_reports_all_of_its_cases(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("NYBBLE_CACHE", cache)
    monkeypatch.setattr(rtl, "run_loops", lambda _drawn: [])  # a circuit of its own test
    path = tmp_path / "report.json"
    assert verify_rtl(VerifyRequest(TARGET, range(2, 3), 3, str(path))) == 0
    found = json.loads(path.read_text())
    assert (found["cases"], found["elements"], found["failed"]) == (1, 1, 0)


def test_a_wrong_sum_is_reported(cache, monkeypatch):
    monkeypatch.setenv("NYBBLE_CACHE", cache)
    case = draw(3, 2)
    assert run_cases(case.design, [case]) == []
    expected = case.expected.copy()
    expected[-1] += 1
    [fault] = run_cases(case.design, [replace(case, expected=expected)])
    assert fault["case"] == 2
    assert fault["fault"].startswith("1 wrong: ")


def test_a_wrong_loop_is_reported(cache, monkeypatch):
    monkeypatch.setenv("NYBBLE_CACHE", cache)
    cases = [draw(3, 2), draw(3, 4)]
    sums = [int(case.expected[-1, 0]) for case in cases]
    monkeypatch.setattr(rtl, "loop_sums", lambda _rows, _cache: [sums[0], sums[1] + 1])
    [fault] = run_loops(cases)
    assert fault["case"] == 4
    assert fault["fault"] == f"the loop of the last row gives {sums[1] + 1} instead of {sums[1]}"


def test_options_of_other_targets_are_refused():
    with pytest.raises(UsageError, match="--isa with target fpga-rtl"):
        verify_rtl(VerifyRequest(TARGET, range(1), 0, None, {"isa": "avx2"}))
