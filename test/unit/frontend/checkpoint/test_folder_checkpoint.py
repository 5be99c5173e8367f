"""A Hugging Face folder: the same interface, and every kind of bad folder."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from nybble.frontend.checkpoint import CheckpointError, open_checkpoint
from nybble.frontend.checkpoint.config import checked_config

INDEX = "model.safetensors.index.json"


def test_single_file(folder, weights):
    checkpoint = open_checkpoint(folder(weights))
    assert checkpoint.architecture == "llama"
    assert checkpoint.metadata is None
    assert set(checkpoint.tensors) == set(weights)
    for name, values in weights.items():
        entry = checkpoint.tensors[name]
        assert (entry.format, entry.shape) == ("f32", values.shape)
        assert np.array_equal(entry.raw().view("<f4").reshape(values.shape), values)
        assert not entry.raw().flags.writeable


def test_half_precision(folder, weights):
    half = {name: values.astype(np.float16) for name, values in weights.items()}
    entry = open_checkpoint(folder(half)).tensors["model.layers.0.mlp.up_proj.weight"]
    assert entry.format == "f16"
    assert entry.raw().shape == (64, 64)


def test_bfloat16(folder, weights):
    # numpy has no bfloat16: write f16 of the same size and rename the type in the header.
    path = folder({name: values.astype(np.float16) for name, values in weights.items()})
    file = path / "model.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b'"F16"', b'"BF16"').rstrip()
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    entry = open_checkpoint(path).tensors["model.norm.weight"]
    assert (entry.format, entry.raw().shape) == ("bf16", (1, 64))


def test_shards(folder, weights):
    path = folder({})
    (path / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({name: weights[name] for name in members}, path / file)
    places = {name: file for file, members in parts.items() for name in members}
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    checkpoint = open_checkpoint(path)
    assert set(checkpoint.tensors) == set(weights)
    save_file({names[0]: weights[names[0]], names[1]: weights[names[1]]}, path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"b.safetensors: tensors that the index lists: "):
        open_checkpoint(path)


def test_tensor_in_two_shards(folder, weights):
    path = folder(weights)
    save_file({"model.norm.weight": weights["model.norm.weight"]}, path / "b.safetensors")
    places = {"lm_head.weight": "model.safetensors", "model.norm.weight": "b.safetensors"}
    (path / INDEX).write_text(json.dumps({"weight_map": places}))
    with pytest.raises(CheckpointError, match=r"'model.norm.weight' is in two files"):
        open_checkpoint(path)


def test_tied_head(folder, weights):
    del weights["lm_head.weight"]
    checkpoint = open_checkpoint(folder(weights, tie_word_embeddings=True))
    head = checkpoint.tensors["lm_head.weight"]
    assert head.stored_as == "model.embed_tokens.weight"
    expected = weights["model.embed_tokens.weight"]
    assert np.array_equal(head.raw().view("<f4").reshape(expected.shape), expected)


def test_buffers_of_old_files_are_skipped(folder, weights):
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    assert len(open_checkpoint(folder(weights)).tensors) == len(weights) - 1


def test_text_part_of_a_multimodal_model(folder, weights):
    renamed = {
        name.replace("model.", "language_model.model.", 1): values
        for name, values in weights.items()
        if not name.startswith("lm_head")
    }
    renamed["vision_tower.x"] = np.ones(3, np.float32)
    for index in range(2):
        layer = f"language_model.model.layers.{index}"
        for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm"):
            renamed[f"{layer}.{name}.weight"] = np.ones(32, np.float32)
        for name in ("q_norm", "k_norm"):
            renamed[f"{layer}.self_attn.{name}.weight"] = np.ones(8, np.float32)
    path = folder(renamed)
    inner = json.loads((path / "config.json").read_text()) | {"model_type": "gemma3_text"}
    (path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": inner}))
    checkpoint = open_checkpoint(path)
    assert checkpoint.architecture == "gemma3"
    assert checkpoint.config["tie_word_embeddings"] is True
    norm = checkpoint.tensors["model.layers.0.self_attn.q_norm.weight"]
    assert (norm.raw().view("<f4") == 1).all()
    (path / "config.json").write_text(json.dumps({"text_config": 3}))
    with pytest.raises(CheckpointError, match="text_config is 3"):
        open_checkpoint(path)


def test_no_pickle(folder):
    path = folder({})
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled weights are never read"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("../model.safetensors", "in the same folder"),
        ("/etc/passwd.safetensors", "in the same folder"),
        ("a\\b.safetensors", "in the same folder"),
        ("a\0.safetensors", "in the same folder"),
        ("model.bin", "in the same folder"),
        (7, "in the same folder"),
        ("none.safetensors", "cannot be read: No such file"),
    ],
)
def test_file_names_in_the_index(folder, weights, file, message):
    path = folder(weights)
    (path / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": file}}))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a JSON list; expected an object"),
        ("{}", "weight_map must be an object"),
        ('{"weight_map": {}}', "weight_map must be an object"),
        (json.dumps({"weight_map": {f"t{n}": f"{n}.safetensors" for n in range(1025)}}), "1025"),
    ],
)
def test_bad_index(folder, weights, text, message):
    path = folder(weights)
    (path / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


CONFIGURATIONS = {
    "empty": ("", "is empty"),
    "cut": ('{"model_type": "lla', "byte 15: is not JSON"),
    "binary": (b"\xff\xfe\x00", "not UTF-8"),
    "list": ("[1]", "a JSON list"),
    "deep": ("[" * 100000, "too deeply"),
    "deep object": ('{"a":' * 100000, "too deeply"),
    "key twice": ('{"a": 1, "a": 2}', "key 'a' appears twice"),
    "not a number": ('{"rms_norm_eps": NaN}', "must be finite"),
    "huge integer": ('{"a": ' + "9" * 100000 + "}", "is not JSON that can be read"),
    "no model type": ("{}", "model_type is None"),
    "unknown type": ('{"model_type": "bert"}', "'bert' is not supported; these are: llama"),
    "type of a number": ('{"model_type": 3}', "model_type is 3"),
    "huge": (" " * (5 << 20), "at most 4194304 are accepted"),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_bad_config_json(case, folder, weights, bounded):
    text, message = CONFIGURATIONS[case]
    path = folder(weights)
    (path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    bounded()
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert message in str(caught.value)


ENTRIES = {
    "null width": ({"hidden_size": None}, "'hidden_size' is missing"),
    "huge width": ({"hidden_size": 1 << 40}, "an integer from 1 to 1048576"),
    "bool width": ({"hidden_size": True}, "an integer from 1"),
    "text": ({"num_hidden_layers": "2"}, "an integer from 1 to 1024"),
    "heads": ({"num_key_value_heads": 3}, "a divisor of the 4"),
    "activation": ({"hidden_act": "relu"}, "'relu'; needed: one of silu"),
    "old quantization": ({"compression_config": {"bits": 4}}, "absent (not supported)"),
    "rope scaling": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "one of default"),
    "rope scaling of text": ({"rope_scaling": "x"}, "needed: an object"),
    "bias": ({"attention_bias": 1}, "true or false"),
    "end of text": ({"eos_token_id": [1, 40]}, "token ids from 0 to 39"),
    "missing tensors": ({"num_hidden_layers": 3}, "tensors missing: 'model.layers.2."),
    "more tensors": ({"num_hidden_layers": 1}, "its architecture does not have"),
    "shape": ({"intermediate_size": 65}, "has shape [64, 32]; the configuration needs [65, 32]"),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_bad_entries(case, folder, weights):
    entries, message = ENTRIES[case]
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder(weights, **entries))
    assert message in str(caught.value)


def test_missing_head(folder, weights):
    del weights["lm_head.weight"]
    with pytest.raises(CheckpointError, match=r"tensors missing: 'lm_head.weight'"):
        open_checkpoint(folder(weights))


def describe(config, **entries):
    from nybble.frontend.checkpoint.architectures import architecture_named

    values = config(**entries)
    return checked_config("config.json", architecture_named("f", values["model_type"]), values)


def test_windows(config):
    mistral = {"model_type": "mistral"}
    assert describe(config, **mistral)["sliding_window"] == 4096
    assert describe(config, **mistral, sliding_window=None)["sliding_window"] is None
    qwen = {"model_type": "qwen2", "sliding_window": 8, "max_window_layers": 1}
    assert describe(config, **qwen)["sliding_window"] is None
    sliding = describe(config, **qwen, use_sliding_window=True)
    assert sliding["layer_types"] == ["full_attention", "sliding_attention"]
    assert sliding["sliding_window"] == 8
    with pytest.raises(CheckpointError, match="a list of 2 names"):
        describe(config, **qwen, layer_types=["full_attention"])
    with pytest.raises(CheckpointError, match="names out of full_attention"):
        describe(config, **qwen, layer_types=["full_attention", "linear"])


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma3_text"])
def test_transformers_accepts_the_configuration(kind, config):
    transformers = pytest.importorskip("transformers", reason="oracle: pip install nybble[torch]")
    entries = describe(config, model_type=kind)
    made = transformers.AutoConfig.for_model(**entries)
    for key in entries.keys() - {"model_type"}:
        assert getattr(made, key) == entries[key], key


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma3_text"])
def test_transformers_has_the_same_parameters(kind, config):
    transformers = pytest.importorskip("transformers", reason="oracle: pip install nybble[torch]")
    torch = pytest.importorskip("torch", reason="oracle: pip install nybble[torch]")
    from nybble.frontend.checkpoint.architectures import architecture_named, parameters

    entries = describe(config, model_type=kind)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**entries)
        )
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    ours = parameters(architecture_named("f", kind), entries)
    assert {one.name: one.shape for one in ours} == expected
