"""`nybble compile FILE.mlir --target fpga` and `nybble verify --target fpga`."""

import json

import pytest

from nybble.backends.fpga.csim.tools import ToolError, compiler, headers
from nybble.backends.fpga.dataflows import devices
from nybble.backends.fpga.elements import DATAFLOWS
from nybble.tools.target import FPGAS
from nybble.tools.verify.fpga import draw, make, usual_formats
from nybble.tools.verify.fpga_rows import draw_families

TEXT = """func.func @f(
    %x: tensor<1x64xf32>, %w: !lowbit.tensor<8x64, "{spec}">) -> tensor<1x8xf32> {{
  %y = mpgemm.matmul %x, %w : tensor<1x64xf32>, !lowbit.tensor<8x64, "{spec}"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}}
"""


def compiled(run_nybble, folder, spec, *more):
    (folder / "f.mlir").write_text(TEXT.format(spec=spec))
    out = folder / "out"
    outcome = run_nybble("compile", str(folder / "f.mlir"), "-o", str(out), *more)
    return outcome, out


def test_levels_are_the_devices():
    assert set(FPGAS) == set(devices())


def test_files_and_manifest(run_nybble, tmp_path):
    outcome, out = compiled(run_nybble, tmp_path, "w2g32", "--target", "fpga:zcu104")
    assert outcome.code == 0, outcome.err
    found = {one.name for one in out.iterdir()}
    assert {"f_0.cpp", "f_0.h", "run_hls.tcl", "host.cpp", "connectivity.cfg"} < found
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["target"] == "fpga:zcu104"
    (kernel,) = manifest["kernels"]
    assert kernel["modelled"] is True
    assert kernel["cycles"] == pytest.approx(max(kernel["processes"].values()), rel=3)
    assert kernel["resources"]["lut"] < kernel["available"]["lut"] == 230400
    assert [one["name"] for one in kernel["memories"]] == ["x", "w0", "s", "y"]


CHAIN = """func.func @f(%x: tensor<1x64xf32>, %g: tensor<64xf32>,
    %w: !lowbit.tensor<64x64, "w2g32">) -> tensor<1x64xf32> {
  %n = fused.rms_norm %x, %g eps 1.0e-05 : tensor<1x64xf32>, tensor<64xf32> -> tensor<1x64xf32>
  %p = mpgemm.matmul %n, %w
    : tensor<1x64xf32>, !lowbit.tensor<64x64, "w2g32"> -> tensor<1x64xf32>
  %r = arith.addf %x, %p : tensor<1x64xf32>
  func.return %r : tensor<1x64xf32>
}
"""


@pytest.mark.parametrize(("more", "kernels"), [((), ["f_0", "f_1"]), (("--chain",), ["f_0"])])
def test_operators_between_products(run_nybble, tmp_path, more, kernels):
    (tmp_path / "f.mlir").write_text(CHAIN)
    out = tmp_path / "out"
    arguments = (str(tmp_path / "f.mlir"), "-o", str(out), "--target", "fpga:u280", *more)
    outcome = run_nybble("compile", *arguments)
    assert outcome.code == 0, outcome.err
    made = json.loads((out / "manifest.json").read_text())["kernels"]
    assert [one["name"] for one in made] == kernels
    assert all((out / f"{name}.cpp").is_file() for name in kernels)
    named = {memory for one in made[0]["inputs"] for memory in one["memories"]}
    assert named < {one["name"] for one in made[0]["memories"]}
    assert (out / "nybble_rows.h").is_file()


def test_a_stage_before_the_last(run_nybble, tmp_path):
    outcome, out = compiled(
        run_nybble, tmp_path, "w2g32", "--target", "fpga", "--compile-to", "fused"
    )
    assert outcome.code == 0, outcome.err
    assert {one.name for one in out.iterdir()} == {"fused.mlir", "manifest.json"}


@pytest.mark.parametrize(("spec", "more", "told"), [
    ("nf4", (), "codes of 'nf4' are no bits of a few planes"),
    ("w2g32", ("--threads", "2"), "--threads with target fpga:u280"),
    ("w2g32", ("--compile-to", "lowered"), "stage 'lowered' of target fpga:u280"),
])  # fmt: skip
def test_what_is_refused(run_nybble, tmp_path, spec, more, told):
    outcome, out = compiled(run_nybble, tmp_path, spec, "--target", "fpga:u280", *more)
    assert outcome.code
    assert told in outcome.err
    assert not out.exists()


def test_cases_are_verified(run_nybble, tmp_path, monkeypatch):
    try:
        compiler(), headers()
    except ToolError as error:
        pytest.skip(str(error))
    monkeypatch.setattr("nybble.tools.verify.fpga.KERNELS", 1)
    report = tmp_path / "report.json"
    arguments = ("--target", "fpga", "--cases", "40", "--formats", "w2g32", "--json", str(report))
    outcome = run_nybble("verify", *arguments)
    assert outcome.code == 0, outcome.err
    found = json.loads(report.read_text())
    assert (found["target"], found["cases"], found["failed"]) == ("fpga:u280", 40, 0)
    assert 0 <= found["worst"]["error"] <= 1


@pytest.mark.parametrize(("arguments", "told"), [
    (("--target", "fpga", "--dataflow", "nosuch"), "unknown dataflow 'nosuch'"),
    (("--target", "cpu", "--dataflow", "xnor_array"), "unknown dataflow 'xnor_array'"),
    (("--target", "fpga", "--dataflow", "xnor_array", "--formats", "w4"), "no bipolar integers"),
    (("--target", "fpga", "--formats", "bitmod4", "--dataflow", "lut_array"), "no bits of a few"),
    (("--target", "fpga", "--op", "fused.rope", "--dataflow", "lut_array"), "--dataflow with"),
    (("--target", "cpu", "--op", "fused.rope"), "--op fused.rope with target cpu"),
])  # fmt: skip
def test_what_cannot_be_verified_is_refused(run_nybble, arguments, told):
    outcome = run_nybble("verify", *arguments)
    assert outcome.code
    assert told in outcome.err


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_every_dataflow_has_formats_to_draw(dataflow):
    found = {one.dataflow for one in draw(3, usual_formats(dataflow), dataflow, "u280")}
    assert found == {dataflow}


@pytest.mark.parametrize(("family", "numbers"), [
    ("sparse_attn.attention", (2, 6939, 8666)),  # logits of some thousands
    ("fused.glu", (230, 1011)),  # next to nothing of a gate that is shut
])  # fmt: skip
def test_references_are_near_the_operators_where_these_are_hard(family, numbers):
    drawn = draw_families(1, 8, "u280", (family,))
    assert {one.family for one in drawn} == {family}
    for number in numbers:
        assert make(drawn[number % 8], number, 1).error <= 1
