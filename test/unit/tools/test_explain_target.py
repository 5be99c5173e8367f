"""`nybble explain MODEL --target T` on the command line."""

import json

import pytest

from nybble.costmodel.targets.reader import TARGETS


def test_a_shape_needs_no_file(run_nybble):
    outcome = run_nybble("explain", "llama-3-8b", "--target", "h100", "--batch", "4")
    assert outcome.code == 0
    assert "llama-3-8b on h100 (NVIDIA H100 SXM5, 80 GB)" in outcome.out
    assert "decode of 4 x 1 token after 2047" in outcome.out


def test_the_cpu_shows_kernels_and_times(run_nybble):
    asked = ("explain", "smollm2-135m", "--isa", "x86-64-v3", "--context", "128", "--prompt", "32")
    report = json.loads(run_nybble(*asked, "--json", "-").out)
    assert (report["target"], report["machine"]) == ("cpu", "cpu-avx2")
    assert report["prefill"]["tokens"] == 32
    glu = next(one for one in report["kernels"] if one["kernel"] == "product_glu")
    assert glu["fusion"].startswith("analytic: product_glu ")
    assert glu["estimate"]["bound"] in ("compute", "memory", "launch")
    assert glu["estimate"]["seconds"] >= max(glu["estimate"]["terms"].values())
    printed = run_nybble(*asked).out
    assert "  estimate   " in printed
    assert "prefill of 1 x 32 tokens" in printed


def test_a_target_of_ones_own(run_nybble, tmp_path):
    from importlib.resources import files

    text = files("nybble.costmodel.targets").joinpath(TARGETS["u280"]).read_text()
    own = tmp_path / "own.yaml"
    own.write_text(text.replace("name: u280", "name: own").replace("460 GB/s", "46 GB/s"))
    asked = ("explain", "llama-2-7b", "--context", "64", "--json", "-", "--target")
    found = [json.loads(run_nybble(*asked, one).out) for one in ("u280", str(own))]
    slower = found[1]["decode"]["seconds"] / found[0]["decode"]["seconds"]
    assert 8 < slower < 10
    own.write_text(text.replace("460 GB/s", "fast"))
    outcome = run_nybble(*asked, str(own))
    assert outcome.code == 1
    assert "memory[1].total.value: 'fast' is no number of bytes a second" in outcome.err


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (["llama-3-8b", "--target", "h10"], 1, "unknown target 'h10'"),
        (["llama-3-8b", "--prompt", "4096"], 1, "a prompt of 4096 tokens"),
        (["llama-3-8b", "--format", "w1g3"], 1, "4096 columns in format 'w1g3'"),
        (["llama-3-8b", "--target", "a100", "--batch", "0"], 2, "--batch"),
        (["--op", "mpgemm.matmul", "--target", "a100"], 2, "is no target that --op can ask about"),
        (["x.mlir", "--target", "a100"], 2, "is for whole models"),
    ],
)
def test_what_cannot_be_asked(given, code, message, run_nybble):
    outcome = run_nybble("explain", *given)
    assert (outcome.code, message in outcome.err) == (code, True), outcome.err
