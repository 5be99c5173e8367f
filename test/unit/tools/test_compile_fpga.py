"""`nybble compile SHAPE --target fpga:BOARD`: figures, files and refusals."""

import json

import pytest

from nybble.backends.fpga.isa.assembly import assemble
from nybble.backends.fpga.isa.encoding import decode

SMALL = ("compile", "smollm2-135m", "--target", "fpga:kv260", "--weights", "w4n8:16,v_proj=w8")
SHORT = ("--context", "256", "--prompt", "100", "--answer", "20")


def test_figures_are_marked_as_modelled(run_nybble):
    found = run_nybble(*SMALL, *SHORT, "--json", "-")
    assert found.code == 0, found.err
    report = json.loads(found.out)
    assert report["modelled"] is True
    assert report["weights"]["self_attn_q_proj_weight"] == "w4n8:16"
    assert report["weights"]["self_attn_v_proj_weight"] == "w8"
    assert report["tokens_per_s"] == pytest.approx(20 / report["decode_seconds"])
    assert 0 < report["bandwidth_utilisation"] < 1
    assert report["energy_per_token_joules"] == pytest.approx(sum(report["energy_joules"].values()))
    assert report["streams"] == 256 // 16 + 256 // 128
    assert report["per_length_instruction_bytes"] > 500 * report["instruction_bytes"]
    assert (report["prompt"], report["answer"], report["context"]) == (100, 20, 256)
    text = run_nybble(*SMALL, *SHORT).out
    assert text.startswith("smollm2-135m on kv260 (AMD Kria KV260 (XCK26)), modelled\n")
    assert f"{report['tokens_per_s']:.1f} tokens/s" in text


def test_a_folder_has_the_streams_and_where_they_are(run_nybble, tmp_path):
    folder = tmp_path / "out"
    found = run_nybble(*SMALL, *SHORT, "-o", str(folder))
    assert found.code == 0, found.err
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / "streams.bin").read_bytes()
    assert len(data) == manifest["instruction_bytes"]
    assert manifest["registers"]["head"] == 64
    for place in manifest["streams"].values():
        stream = [*decode(data[place["offset"] : place["offset"] + place["bytes"]])]
        assert len(stream) == place["instructions"]
        assert stream[-1].named("action") == "halt"
    listing = (folder / "prefill_128_layer.s").read_text()
    assert next(assemble(listing)).named("action") == "loop"
    assert "wait=" in listing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("llama-2-70b", "--target", "fpga:kv260"),
         "69.12 GB do not fit 'ddr4' of kv260, 64.83 GB too many"),
        (("llama9", "--target", "fpga:u280"), "unknown model shape 'llama9'"),
        (("llama2-7b", "--target", "fpga:u280", "--weights", "nf4"),
         "self_attn_q_proj_weight: no accelerator multiplies 'nf4'"),
        (("llama2-7b", "--target", "fpga:u280", "--weights", "nosuch"), "unknown format 'nosuch'"),
        (("llama2-7b", "--target", "fpga:u280", "--weights", "layers.3=w4"),
         "of some layers only has a format of its own"),
        (("llama2-7b", "--target", "fpga:u280", "--prompt", "4000"), "a prompt of 4000 and an"),
    ],
)  # fmt: skip
def test_what_cannot_be_compiled_is_refused(run_nybble, arguments, message):
    found = run_nybble("compile", *arguments)
    assert found.code == 1
    assert message in found.err
    assert "note: accepted: " in found.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("llama2-7b", "--target", "fpga:z80"), "unknown target 'fpga:z80'"),
        (("llama2-7b", "--target", "fpga:u280", "--isa", "x86-64-v3"), "--isa with target fpga"),
        (("llama2-7b", "--target", "fpga:u280", "--compile-to", "fused"), "only an MLIR file can"),
        (("llama2-7b", "--target", "fpga:u280", "--weights", "w4", "--smooth"), "only a shape has"),
        (("smollm2", "-o", "x", "--prompt", "5"), "--prompt and --answer with target cpu"),
    ],
)
def test_options_of_other_targets_are_refused(run_nybble, arguments, message):
    found = run_nybble("compile", *arguments)
    assert found.code == 2
    assert message in found.err
