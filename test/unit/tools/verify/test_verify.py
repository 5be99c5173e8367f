"""`nybble verify`: what its cases are, and that it finds what is wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nybble.backends.cpu import dataflows
from nybble.backends.cpu.isa import X86_64_V3, detect
from nybble.backends.cpu.kernels.matmul import gemv_f32, groups
from nybble.backends.cpu.machine import cpu_flags
from nybble.dialects.lowbit import formats
from nybble.tools.verify import run as runs
from nybble.tools.verify.cases import DATA, MISFIT, REFUSED, TOKENS, Case, Draw, Kernel
from nybble.tools.verify.data import make
from nybble.tools.verify.judge import judge
from nybble.tools.verify.run import run

HOST = detect(cpu_flags())
DRAW = Draw(3, ("q4_0", "w2g64z", "f16", "q6_k"), HOST)
KERNEL = Kernel("q4_0", 3, 64, False, "int_dot", "i8", "")


def nothing(_done):
    return


def outcomes(draw, numbers):
    return run(draw, numbers, 1, nothing)


def faults(found):
    return [one.judgement.fault for one in found if one.judgement.fault]


def test_a_case_follows_from_seed_and_number():
    cases = [DRAW.case(number) for number in range(400)]
    assert [DRAW.case(number) for number in range(400)] == cases
    assert [replace(DRAW, seed=4).case(number) for number in range(400)] != cases
    assert {case.kernel.spec for case in cases} == set(DRAW.specs)
    assert {case.data for case in cases} == set(DATA)
    assert {case.kernel.dataflow for case in cases} >= {"int_dot", "dequantize", MISFIT}
    assert {case.tokens for case in cases} >= {1, 2, TOKENS}
    assert any(case.kernel.rows == 1 for case in cases)
    assert any(case.kernel.rows % 2 for case in cases)
    assert len({case.kernel for case in cases}) < len(cases) / 2, "kernels are shared"


def test_shapes_fit_but_where_they_must_not():
    for case in (DRAW.case(number) for number in range(400)):
        kernel, description = case.kernel, formats.get(case.kernel.spec)
        assert (kernel.cols % description.block != 0) == (kernel.dataflow == MISFIT)


@pytest.mark.parametrize("kind", DATA)
def test_data_is_what_its_kind_says(kind):
    case = Case(5, replace(KERNEL, rows=64, cols=256), 4, kind)
    data, dense = make(case, 1), make(case, 1).weights[0].dequantize()
    assert (make(case, 1).x == data.x).all()
    groups = dense.reshape(64, 8, 32)
    scales = np.abs(data.weights[0].scale)
    assert (kind == "infinite") == (not data.finite)
    assert (kind == "zero_groups") == bool((groups == 0).all(axis=2).any())
    assert (kind == "denormal") == bool(0 < scales.max() < 2**-14)
    assert (kind == "exact") == data.exact
    assert (kind == "extreme") == (len(np.unique(np.abs(data.x))) == 1)


def test_kernels_agree_with_the_references():
    found = outcomes(DRAW, range(32))
    assert faults(found) == []
    assert sum(one.ran for one in found) >= 24
    assert max(one.judgement.nmse for one in found) < 1e-4


def test_a_wrong_kernel_of_integers_is_found(monkeypatch):
    """The sum over columns starts one too high."""
    right = groups.IntegerGroups.sum_of
    wrong = lambda self, group: right(self, group) + 1.0  # noqa: E731
    monkeypatch.setattr(groups.IntegerGroups, "sum_of", wrong)
    draw = Draw(1, ("q4_1",), HOST, "int_dot")
    numbers = [
        n for n in range(60) if draw.case(n).tokens == 1 and not draw.case(n).kernel.is_error
    ]
    assert len(faults(outcomes(draw, numbers[:4]))) == 4


def test_a_wrong_column_is_found(monkeypatch):
    """The second of each pair of columns is left out."""

    def wrong(b, columns, first, pair):
        skipping = (
            (offset, [values[0], *values[:1], *values[2:]][: len(values)])
            for offset, values in columns
        )
        return right(b, skipping, first, pair)

    right = gemv_f32._chained
    monkeypatch.setattr(gemv_f32, "_chained", wrong)
    draw = Draw(1, ("w4g32",), HOST, "dequantize")
    numbers = [
        n for n in range(60) if draw.case(n).tokens == 1 and not draw.case(n).kernel.is_error
    ]
    assert faults(outcomes(draw, numbers[:3]))


def test_what_is_not_refused_is_found(monkeypatch):
    row = next(row for row in dataflows.ROWS if row.name == "dequantize")
    case = Case(0, Kernel("f16", 3, 64, False, REFUSED, "f32", ""), 1, "normal")
    assert row.modes
    assert runs.refused(DRAW, case).fault == "it was not refused"
    misfit = Case(0, Kernel("q4_0", 3, 33, False, MISFIT, "i8", ""), 1, "normal")
    assert runs.refused(DRAW, misfit).fault == ""
    unnamed = Case(0, Kernel("q4_0", 3, 33, False, REFUSED, "i8", ""), 1, "normal")
    monkeypatch.setattr(runs, "MISFIT", "other")
    assert runs.refused(DRAW, replace(unnamed, kernel=KERNEL)).fault == "it was not refused"


@pytest.mark.parametrize(
    ("kind", "change", "fault"),
    [
        ("exact", lambda y: y + 0.5, "is right"),
        ("normal", lambda y: y * np.float64(1.001), "is right"),
        ("normal", lambda y: np.full_like(y, np.nan), "finite in one"),
        ("infinite", np.nan_to_num, "finite in one"),
        ("exact", lambda y: y, ""),
        ("infinite", lambda y: y, ""),
    ],
)
def test_judgement(kind, change, fault):
    case = Case(5, replace(KERNEL, rows=64, cols=256), 2, kind)
    data = make(case, 1)
    with np.errstate(invalid="ignore"):
        wanted = data.x.astype(np.float64) @ data.weights[0].dequantize().astype(np.float64).T
    said = judge(case, data, wanted, change(wanted)).fault
    assert fault in said
    assert bool(said) == bool(fault)


def test_weights_beyond_f32_may_be_summed_below_it():
    case = Case(0, Kernel("mxfp4", 2, 32, False, "int_dot", "i8", ""), 1, "infinite")
    data = make(replace(case, data="normal"), 0)
    scale = np.full_like(data.weights[0].scale, 2.0**127)
    weight = replace(data.weights[0], scale=scale, codes=np.full((2, 32), 7, np.uint8))
    data = replace(data, weights=(weight,), finite=False)
    assert not judge(case, data, np.full((1, 2), np.inf), np.full((1, 2), 1e38)).fault
    weight = replace(weight, scale=np.full_like(scale, np.inf))
    data = replace(data, weights=(weight,))
    assert judge(case, data, np.full((1, 2), np.inf), np.full((1, 2), 1e38)).fault


def test_terms_that_cancel_are_measured_by_their_size():
    case = Case(0, Kernel("nf4", 1, 64, False, "dequantize", "f32", ""), 1, "normal")
    data = make(case, 0)
    size = np.square(data.x.astype(np.float64)) @ np.square(data.weights[0].dequantize()).T
    wanted = np.full((1, 1), 1e-6)
    said = judge(case, data, wanted, wanted + 1e-7)
    assert said.nmse == pytest.approx(1e-14 / size.item())
    assert not said.fault


def test_report(run_nybble):
    given = ["verify", "--formats", "q4_0,w2g64z", "--cases", "16", "--seed", "3", "--jobs", "1"]
    report = json.loads(run_nybble(*given, "--json", "-").out)
    assert report["cases"] == 16
    assert report["failed"] == 0
    assert report["refused"] == 2
    assert {"format", "shape", "error"} <= set(report["worst"])
    assert report["isa"] == HOST.name


def test_a_failure_is_an_exit_code_and_can_be_repeated(run_nybble, monkeypatch):
    monkeypatch.setattr("nybble.tools.verify.judge.NMSE_LIMIT", -1.0)
    monkeypatch.setattr("nybble.tools.verify.judge.NMSE_LIMITS", {})
    given = ["verify", "--formats", "w4g32", "--isa", X86_64_V3.name, "--jobs", "1"]
    outcome = run_nybble(*given, "--cases", "4", "--seed", "1")
    assert outcome.code == 1
    assert "again: nybble verify --formats w4g32 --isa x86-64-v3 --seed 1 --case " in outcome.out


def test_an_unknown_format_is_a_usage_error(run_nybble):
    assert run_nybble("verify", "--formats", "q4_0,q9").code == 2
