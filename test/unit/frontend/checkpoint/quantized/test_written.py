"""Checkpoints that GPTQModel, AutoAWQ and torchao wrote: the weights are theirs, bit for bit."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nybble.dialects.lowbit import formats
from nybble.frontend.checkpoint import CheckpointError, open_checkpoint

WRITTEN = Path(__file__).parent / "written"
FORMATS = {
    "awq4": {"w4g32z"},
    "gptq2": {"w2g32z"},
    "gptq3": {"w3"},
    "gptq4": {"w4g32z"},
    "gptq8": {"w8g32"},
    "torchao": {
        "i8:g=row:s=f32",
        "u4:g=32:s=bf16:z=int.u4",
        "fp8_e4m3",
        "i3:g=row:s=bf16",
        "i4:g=32:s=bf16",
        "nvfp4_scaled",
        "mxfp4",
    },
}


def test_every_folder_has_a_case():
    assert sorted(path.name for path in WRITTEN.iterdir() if path.is_dir()) == sorted(FORMATS)


def decoded(entry):
    """f32 of the entry's shape."""
    return formats.get(entry.format).unpack(entry.raw(), entry.shape[-1]).dequantize()


@pytest.mark.parametrize("case", FORMATS)
def test_weights_are_those_of_the_writer(case):
    expected = json.loads((WRITTEN / case / "expected.json").read_text())["sha256"]
    checkpoint = open_checkpoint(WRITTEN / case)
    assert {checkpoint.tensors[name].format for name in expected} == FORMATS[case]
    assert len(expected) == 7
    for name, digest in expected.items():
        values = decoded(checkpoint.tensors[name]).astype("<f4") + np.float32(0)
        assert hashlib.sha256(values.tobytes()).hexdigest() == digest, name


def test_one_wrong_code_is_noticed(tmp_path):
    folder = shutil.copytree(WRITTEN / "gptq4", tmp_path / "gptq4")
    name = "model.layers.0.mlp.up_proj"
    digest = json.loads((folder / "expected.json").read_text())["sha256"][f"{name}.weight"]
    data = bytearray((folder / "model.safetensors").read_bytes())
    length = int.from_bytes(data[:8], "little")
    start, _ = json.loads(data[8 : 8 + length])[f"{name}.qweight"]["data_offsets"]
    data[8 + length + start] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    values = decoded(open_checkpoint(folder).tensors[f"{name}.weight"])
    assert hashlib.sha256(values.astype("<f4").tobytes()).hexdigest() != digest


@pytest.fixture
def edited(tmp_path):
    """A function (case, edit of config and tensors) -> the folder of a changed checkpoint."""

    def edit_copy(case, edit):
        folder = shutil.copytree(WRITTEN / case, tmp_path / case)
        config = json.loads((folder / "config.json").read_text())
        tensors = as_f16(folder / "model.safetensors")
        edit(config, tensors)
        (folder / "config.json").write_text(json.dumps(config))
        save_file(
            {name: np.ascontiguousarray(v) for name, v in tensors.items()},
            folder / "model.safetensors",
        )
        return folder

    return edit_copy


def as_f16(path):
    """The tensors of a file whose bf16, which numpy lacks, is taken for f16."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b'"BF16"', b'"F16" ')
    path.write_bytes(data[:8] + header + data[8 + length :])
    return load_file(path)


def test_groups_in_another_order_are_read(edited):
    plain = decoded(open_checkpoint(WRITTEN / "gptq4").tensors[f"{UP}.weight"])

    def swap(config, tensors):
        for part in ("scales", "qzeros"):
            tensors[f"{UP}.{part}"] = tensors[f"{UP}.{part}"][::-1]
        tensors[f"{UP}.g_idx"] = 1 - tensors[f"{UP}.g_idx"]

    found = open_checkpoint(edited("gptq4", swap)).tensors[f"{UP}.weight"]
    assert np.array_equal(decoded(found), plain)


UP = "model.layers.0.mlp.up_proj"


def put(part, value):
    """An edit that replaces, or with None drops, a tensor of a layer."""

    def edit(config, tensors):
        if value is None:
            del tensors[f"{UP}.{part}"]
        else:
            old = tensors.get(f"{UP}.{part}")
            tensors[f"{UP}.{part}"] = value(old) if callable(value) else value

    return edit


def say(**entries):
    """An edit of quantization_config."""
    return lambda config, tensors: config["quantization_config"].update(entries)


def infinite(scales):
    scales[1, 3] = np.inf
    return scales


def scattered(order):
    order[0], order[40] = 1, 0
    return order


AT_OPENING = {
    "method": (say(quant_method="hqq"), "'quant_method' is 'hqq'; needed: one of awq, bitnet"),
    "no method": (say(quant_method=None), "'quant_method' is missing"),
    "method of a list": (say(quant_method=["gptq"]), "'quant_method' is ['gptq']"),
    "config of a list": (lambda c, t: c.update(quantization_config=[1]), "needed: an object"),
    "bits": (say(bits=5), "'bits' is 5; needed: one of 2, 3, 4, 8"),
    "huge bits": (say(bits=1 << 70), "needed: an integer from 2 to 8"),
    "other bits than stored": (say(bits=8), "qweight' has shape [8, 64]; needed: [16, 64]"),
    "group": (say(group_size=0), "'group_size' is 0; needed: an integer from 1"),
    "group of a text": (say(group_size="32"), "'group_size' is '32'"),
    "group that divides nothing": (say(group_size=48), "64 columns, no multiple of groups of 48"),
    "other group than stored": (say(group_size=16), "qzeros' has shape [2, 8]; needed: [4, 8]"),
    "layout": (say(checkpoint_format="marlin"), "'marlin'; needed: one of gptq, gptq_v2"),
    "planar": (say(format="gptq_p"), "'gptq_p'; needed: one of gptq, gptq_v2"),
    "words": (say(pack_dtype="int16"), "'int16'; needed: one of int32"),
    "overrides": (say(dynamic={"+:x": {"bits": 8}}), "needed: absent (not supported)"),
    "missing scales": (put("scales", None), "up_proj.scales' is missing"),
    "missing codes": (put("qweight", None), "up_proj.qweight' is missing"),
    "both weights": (put("weight", np.ones((96, 64), np.float16)), "one weight is needed"),
    "dtype": (put("scales", np.ones((2, 96), np.int32)), "dtype i32; accepted: f32, f16, bf16"),
    "rank": (put("scales", np.ones(192, np.float16)), "has shape [192]; needed: [2, 96]"),
    "other tensors": (put("bias_correction", np.ones(3, np.int8)), "does not have"),
}


@pytest.mark.parametrize("case", AT_OPENING)
def test_refused_at_opening(case, edited, bounded):
    edit, message = AT_OPENING[case]
    folder = edited("gptq4", edit)
    bounded()
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert message in str(caught.value)


AT_READING = {
    "infinite scale": (put("scales", infinite), "scales that are not finite: inf at [3, 1]"),
    "act-order": (put("g_idx", scattered), "scatters the columns of a group (act-order"),
    "group too far": (put("g_idx", lambda old: old + 1), "groups from 1 to 2; there are 2"),
    "negative group": (put("g_idx", lambda old: old - 1), "groups from -1 to 0; there are 2"),
    "zeros that are said not to be": (say(sym=True), "a symmetric checkpoint has 8 only"),
}


@pytest.mark.parametrize("case", AT_READING)
def test_refused_at_reading(case, edited):
    edit, message = AT_READING[case]
    entry = open_checkpoint(edited("gptq4", edit)).tensors[f"{UP}.weight"]
    with pytest.raises(CheckpointError) as caught:
        entry.raw()
    assert message in str(caught.value)


AWQ = {
    "bits": (say(bits=8), "'bits' is 8; needed: an integer from 4 to 4"),
    "version": (say(version="gemv_fast"), "'gemv_fast'; needed: one of gemm, GEMM"),
    "no zeros": (say(zero_point=False), "'zero_point' is False; needed: true"),
    "shape": (put("qzeros", np.ones((2, 96), np.int32)), "has shape [2, 96]; needed: [2, 12]"),
}


@pytest.mark.parametrize("case", AWQ)
def test_awq_refused(case, edited):
    edit, message = AWQ[case]
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(edited("awq4", edit))
    assert message in str(caught.value)
