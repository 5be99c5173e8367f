"""BitNet layers that transformers packs: the weights are those it unpacks."""

import json

import numpy as np
import pytest

from nybble.dialects.lowbit import formats
from nybble.frontend.checkpoint import CheckpointError, open_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")
torch = pytest.importorskip("torch", reason="needs nybble[torch]")
bitnet = pytest.importorskip("transformers.integrations.bitnet", reason="needs nybble[torch]")
save_file = pytest.importorskip("safetensors.torch").save_file

UP = "model.layers.0.mlp.up_proj"


@pytest.fixture
def written(weights, config, tmp_path):
    """A function (tensors from a layer's f32 weight, entries) -> a folder of such layers."""

    def write(tensors_of, **entries):
        stored = {}
        for name, values in weights.items():
            value = torch.from_numpy(values)
            if name.endswith("_proj.weight"):
                layer = name.removesuffix(".weight")
                stored |= {f"{layer}.{part}": v for part, v in tensors_of(value).items()}
            else:
                stored[name] = value
        save_file({k: v.contiguous() for k, v in stored.items()}, tmp_path / "model.safetensors")
        quantization = {"quant_method": "bitnet", **entries}
        text = json.dumps(config(quantization_config=quantization))
        (tmp_path / "config.json").write_text(text)
        return tmp_path

    return write


def ternary(value):
    """The digits and the mean magnitude of a weight, as `WeightQuant` has them."""
    mean = value.abs().mean().clamp(min=1e-5)
    return (value / mean).round().clamp(-1, 1), mean.reshape(1)


def packed(value):
    digits, mean = ternary(value)
    return {"weight": bitnet.pack_weights(digits.clone()), "weight_scale": 1 / mean}


def multiplied(value):
    digits, mean = ternary(value)
    scale = mean.to(torch.bfloat16)
    return {"weight": bitnet.pack_weights(digits.clone()), "weight_scale": scale}


def unpacked(value):
    digits, mean = ternary(value)
    return {"weight": digits.to(torch.bfloat16), "weight_scale": mean.to(torch.bfloat16)}


def master(value):
    return {"weight": value.to(torch.bfloat16)}


def decoded(folder):
    """(format, f32 of one layer's weight)."""
    entry = open_checkpoint(folder).tensors[f"{UP}.weight"]
    weight = formats.get(entry.format).unpack(entry.raw(), entry.shape[-1])
    return entry.format, torch.from_numpy(weight.dequantize())


def unpack(data):
    """`unpack_weights` of transformers without torch.compile."""
    return bitnet.unpack_weights.__wrapped__(data, torch.float32)


def test_bitlinear(written, weights):
    fmt, found = decoded(written(packed))
    stored = packed(torch.from_numpy(weights[f"{UP}.weight"]))
    assert fmt == "b1_58"
    assert torch.equal(found, unpack(stored["weight"]) * (1 / stored["weight_scale"]))


@pytest.mark.parametrize("tensors_of", [multiplied, unpacked])
def test_autobitlinear(tensors_of, written, weights):
    fmt, found = decoded(written(tensors_of, linear_class="autobitlinear"))
    stored = multiplied(torch.from_numpy(weights[f"{UP}.weight"]))
    assert fmt == "ternary:g=row:s=bf16"
    assert torch.equal(found, unpack(stored["weight"]) * stored["weight_scale"].float())


def test_online(written, weights):
    entries = {"linear_class": "autobitlinear", "quantization_mode": "online"}
    folder = written(master, **entries)
    fmt, found = decoded(folder)
    value = torch.from_numpy(weights[f"{UP}.weight"]).to(torch.bfloat16)
    quantize = bitnet.WeightQuant.forward
    assert fmt == "ternary:g=row:s=bf16"
    assert torch.equal(found, getattr(quantize, "__wrapped__", quantize)(None, value).float())
    head = open_checkpoint(folder).tensors["lm_head.weight"]
    assert head.format == "f32"


def test_layers_left_out_of_online(written):
    entries = {"linear_class": "autobitlinear", "quantization_mode": "online"}
    folder = written(master, **entries, modules_to_not_convert=["up_proj", "lm_head"])
    assert decoded(folder)[0] == "bf16"


def with_digit_three(value):
    stored = packed(value)
    stored["weight"][0, 0] = 3
    return stored


def with_scale(scale):
    return lambda value: packed(value) | {"weight_scale": torch.tensor([scale])}


def with_rows(value):
    return packed(value) | {"weight": torch.zeros(3, value.shape[1], dtype=torch.uint8)}


def half(value):
    return unpacked(value) | {"weight": torch.full_like(value, 0.5)}


AUTO = {"linear_class": "autobitlinear"}
REFUSED = {
    "class": (packed, {"linear_class": "x"}, "needed: one of bitlinear, autobitlinear"),
    "mode": (packed, {"quantization_mode": "x"}, "needed: one of offline, online"),
    "online": (packed, {"quantization_mode": "online"}, "offline with linear_class bitlinear"),
    "norms": (packed, {"use_rms_norm": True}, "needed: false"),
    "left out": (packed, AUTO | {"quantization_mode": "online", "modules_to_not_convert": 3},
                 "a list of at most 4096 strings"),
    "online with a scale": (packed, AUTO | {"quantization_mode": "online"}, "has no meaning"),
    "digit": (with_digit_three, {}, "holds the digit 3; accepted: 0, 1, 2"),
    "zero scale": (with_scale(0.0), {}, "scales that are not finite: inf"),
    "scale of nan": (with_scale(float("nan")), {}, "scales that are not finite: nan"),
    "scales": (lambda v: packed(v) | {"weight_scale": torch.ones(2)}, {}, "needed: [1] or []"),
    "rows": (with_rows, {}, "has shape [3, 32]; needed: [8, 32]"),
    "floats": (unpacked, {}, "has dtype bf16; accepted: u8"),
    "half": (half, AUTO, "holds 0.5; accepted: -1, 0, 1"),
    "no scale": (lambda v: {"weight": packed(v)["weight"]}, {}, "dtype u8; accepted: f32, f16"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, written):
    tensors_of, entries, message = REFUSED[case]
    folder = written(tensors_of, **entries)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder).tensors["model.layers.0.self_attn.q_proj.weight"].raw()
    assert message in str(caught.value)


def test_infinite_master(written):
    entries = {"linear_class": "autobitlinear", "quantization_mode": "online"}
    folder = written(lambda v: {"weight": torch.full_like(v, np.inf)}, **entries)
    with pytest.raises(CheckpointError, match="scales that are not finite"):
        open_checkpoint(folder).tensors[f"{UP}.weight"].raw()
