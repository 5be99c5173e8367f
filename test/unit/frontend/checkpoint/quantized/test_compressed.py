"""Checkpoints that compressed-tensors writes: the weights are those it decompresses."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from nybble.dialects.lowbit import formats
from nybble.frontend.checkpoint import CheckpointError, open_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")
torch = pytest.importorskip("torch", reason="needs nybble[torch]")
transformers = pytest.importorskip("transformers", reason="needs nybble[torch]")
pytest.importorskip("compressed_tensors", reason="oracle: pip install nybble[test]")

ACTIVATIONS = {"num_bits": 8, "strategy": "token", "dynamic": True}
MX = {"type": "float", "group_size": 32, "scale_dtype": "torch.uint8", "strategy": "group"}
NV = {"type": "float", "num_bits": 4, "group_size": 16, "strategy": "tensor_group"}
SCHEMES = {
    "w4": ({"num_bits": 4, "group_size": 32}, None, "i4:g=32:s=f32"),
    "w4 asymmetric": (
        {"num_bits": 4, "group_size": 32, "symmetric": False}, None, "u4:g=32:s=f32:z=int.u4"),
    "w3 by channel": ({"num_bits": 3, "strategy": "channel"}, None, "i3:g=row:s=f32"),
    "w2 asymmetric by channel": (
        {"num_bits": 2, "strategy": "channel", "symmetric": False}, None,
        "u2:g=row:s=f32:z=int.u2"),
    "w8 by tensor": ({"num_bits": 8, "strategy": "tensor"}, None, "i8:g=row:s=f32"),
    "w8a8": ({"num_bits": 8, "strategy": "channel"}, ACTIVATIONS, "i8:g=row:s=f32"),
    "w8a8 asymmetric": (
        {"num_bits": 8, "strategy": "channel", "symmetric": False}, ACTIVATIONS,
        "u8:g=row:s=f32:z=int.u8"),
    "fp8": ({"type": "float", "strategy": "channel"}, ACTIVATIONS | {"type": "float"}, "fp8_e4m3"),
    "fp8 by tensor": (
        {"type": "float", "strategy": "tensor"}, ACTIVATIONS | {"type": "float"}, "fp8_e4m3"),
    "fp8 in blocks": (
        {"type": "float", "strategy": "block", "block_structure": [32, 32]},
        ACTIVATIONS | {"type": "float"}, "e4m3:g=32:s=f32"),
    "nvfp4": (NV | {"scale_dtype": "torch.float8_e4m3fn"}, None, "nvfp4_scaled"),
    "mxfp4": (MX | {"num_bits": 4}, None, "mxfp4"),
    "mxfp6": (MX | {"num_bits": 6}, None, "mxfp6_e2m3"),
    "mxfp8": (MX | {"num_bits": 8}, None, "mxfp8_e4m3"),
}  # fmt: skip


def tiny_llama():
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=64, max_position_embeddings=128,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def calibrate(layer):
    """Set the scales and zeros of a layer from the extremes of its weight."""
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    arguments, weight = layer.quantization_scheme.weights, layer.weight.detach()
    rows, cols = weight.shape
    tall, wide = {
        "tensor": (rows, cols),
        "channel": (1, cols),
        "block": arguments.block_structure,
    }.get(arguments.strategy, (1, arguments.group_size))
    blocks = weight.reshape(rows // tall, tall, cols // wide, wide)
    total = None
    if hasattr(layer, "weight_global_scale"):
        total = generate_gparam(weight.min(), weight.max())
        layer.weight_global_scale.data = total.reshape(1)
    low, high = blocks.amin((1, 3)), blocks.amax((1, 3))
    scale, zero = calculate_qparams(low, high, arguments, global_scale=total)
    layer.weight_scale.data = scale.reshape(layer.weight_scale.shape).to(layer.weight_scale.dtype)
    if hasattr(layer, "weight_zero_point"):
        stored = layer.weight_zero_point
        stored.data = zero.reshape(stored.shape).to(stored.dtype)


def write(folder, weights, activations, **config):
    """A checkpoint of one scheme; returns the weights that the library decompresses."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    model = tiny_llama()
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    told = {"config_groups": {"group_0": group}, "ignore": ["lm_head"], **config}
    apply_quantization_config(model, QuantizationConfig(**told))
    for layer in model.modules():
        if getattr(layer, "quantization_scheme", None) is not None:
            calibrate(layer)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))
    compressor.decompress_model(model)
    return {
        name: value for name, value in model.state_dict().items() if name.endswith("proj.weight")
    }


def decoded(entry):
    """f32 of the entry's shape."""
    values = formats.get(entry.format).unpack(entry.raw(), entry.shape[-1]).dequantize()
    return torch.from_numpy(values)


@pytest.mark.parametrize("case", SCHEMES)
def test_weights_are_those_of_the_library(case, tmp_path):
    weights, activations, fmt = SCHEMES[case]
    expected = write(tmp_path, weights, activations)
    checkpoint = open_checkpoint(tmp_path)
    assert len(expected) == 7
    for name, values in expected.items():
        entry = checkpoint.tensors[name]
        assert formats.get(entry.format) == formats.get(fmt)
        found = decoded(entry).to(values.dtype)
        # With zeros we round scale * code and scale * zero, the library their difference; where it
        # divides by the scale of the matrix, we multiply by the inverse.
        error = 2e-7 if "int." in entry.format else 0
        relative = 2.4e-7 if entry.format == "nvfp4_scaled" else 0
        assert torch.allclose(found, values, rtol=relative, atol=error), name
    assert checkpoint.tensors["lm_head.weight"].format == "f32"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with 4-bit weights with zeros."""
    folder = tmp_path_factory.mktemp("compressed")
    write(folder, SCHEMES["w4 asymmetric"][0], None)
    return folder


UP = "model.layers.0.mlp.up_proj"


@pytest.fixture
def edited(written, tmp_path):
    """A function (edit of config and tensors) -> the folder of a changed checkpoint."""

    def edit_copy(edit):
        config = json.loads((written / "config.json").read_text())
        tensors = load_file(written / "model.safetensors")
        edit(config["quantization_config"], tensors)
        (tmp_path / "config.json").write_text(json.dumps(config))
        save_file(tensors, tmp_path / "model.safetensors")
        return tmp_path

    return edit_copy


def group(**entries):
    """An edit of the weights' entries in the only group."""
    return lambda config, tensors: config["config_groups"]["group_0"]["weights"].update(entries)


def say(**entries):
    return lambda config, tensors: config.update(entries)


def meant(*targets):
    """An edit of the list of layers that the group means."""
    return lambda config, tensors: config["config_groups"]["group_0"].update(targets=list(targets))


def put(part, value):
    return lambda config, tensors: tensors.update({f"{UP}.{part}": value})


REFUSED = {
    "layout": (lambda c, t: c["config_groups"]["group_0"].update(format="marlin-24"), "marlin-24"),
    "sparsity": (say(sparsity_config={"format": "sparse-24-bitmask"}), "needed: one of dense"),
    "transform": (say(transform_config={"a": 1}), "'transform_config' is {'a': 1}"),
    "cache": (say(kv_cache_scheme={"num_bits": 8}), "needed: absent"),
    "status": (say(quantization_status="frozen"), "'frozen'; needed: one of compressed"),
    "no groups": (say(config_groups={}), "needed: 1 to 256 groups"),
    "bits": (group(num_bits=9), "'num_bits' is 9; needed: an integer from 1 to 8"),
    "type": (group(type="float"), "'float'; needed: one of int"),
    "strategy": (group(strategy="token"), "'token'; needed: one of tensor, channel"),
    "order": (group(actorder="group"), "'group'; needed: weight, static or absent"),
    "dynamic": (group(dynamic=True), "needed: false for weights"),
    "symmetric": (group(symmetric=True), "weight_zero_point' has no meaning"),
    "group size": (group(group_size=48), "64 columns, no multiple of groups of 48"),
    "block": (group(strategy="block", block_structure=[0, 3]), "needed: two sizes of 1"),
    "ignored": (say(ignore=["re:.*up_proj"]), "the configuration leaves out this layer"),
    "not meant": (meant("re:.*down_proj"), "the configuration has no group for this layer"),
    "slow pattern": (meant("re:(a+)+$"), "none of a group, without lookaround; not '(a+)+$'"),
    "slow patterns": (meant("re:.*.*.*.*x"), "3 repetitions"),
    "look-around": (meant("re:^(?!x)"), "without lookaround"),
    "no pattern": (meant("re:["), "regular expressions of at most 256"),
    "targets": (meant(3), "a list of strings"),
    "shape": (put("weight_shape", np.array([96, 65])), "weight_shape' is [96, 65]"),
    "packed": (put("weight_packed", np.ones((96, 9), np.int32)), "needed: [96, 8]"),
    "scales": (put("weight_scale", np.ones((96, 3), np.float32)), "needed: [96, 2]"),
    "zeros": (put("weight_zero_point", np.ones((96, 2), np.int32)), "needed: [12, 2]"),
    "index": (put("weight_g_idx", np.ones(64, np.int32)), "weight_g_idx' has no meaning"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, edited, bounded):
    edit, message = REFUSED[case]
    folder = edited(edit)
    bounded()
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert message in str(caught.value)


def test_scale_of_nan(edited):
    scales = np.ones((96, 2), np.float32)
    scales[5, 1] = np.nan
    entry = open_checkpoint(edited(put("weight_scale", scales))).tensors[f"{UP}.weight"]
    with pytest.raises(CheckpointError, match=r"scales that are not finite: nan at \[5, 1\]"):
        entry.raw()


def test_the_closest_group_is_taken(edited):
    def more(config, tensors):
        group = config["config_groups"]["group_0"]
        wide = {"targets": ["Linear"], "weights": {"num_bits": 8}, "format": "int-quantized"}
        group["targets"] = ["re:.*_proj$"]
        config["config_groups"] = {"wide": wide, "activations only": {"targets": ["x"]}, "g": group}

    assert open_checkpoint(edited(more)).tensors[f"{UP}.weight"].format.startswith("u4:")
