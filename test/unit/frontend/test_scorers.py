"""Learned heads beside a checkpoint: read, checked, cut into what a layer's scorer takes."""

import numpy as np
import pytest

from nybble.frontend.checkpoint import Checkpoint, CheckpointError
from nybble.frontend.requantize import values_of
from nybble.frontend.scorers import hidden_features, scorer_sources, with_scorers

CONFIG = {
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32,
}  # fmt: skip
FC1, FC2 = (f"model.layers.1.self_attn.fc{index}.weight" for index in (1, 2))


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return {
        f"model.layers.{layer}.self_attn.fc{index}.weight": rng.standard_normal(shape, np.float32)
        for layer in range(2)
        for index, shape in ((1, (24, 64)), (2, (2, 24)))
    }


@pytest.fixture
def read(tmp_path):
    from safetensors.numpy import save_file

    def scorers(tensors):
        save_file(tensors, tmp_path / "heads.safetensors")
        checkpoint = Checkpoint(tmp_path, "llama", CONFIG, {})
        return with_scorers(checkpoint, tmp_path / "heads.safetensors").tensors

    return scorers


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_columns_of_queries_keys_and_values(read, tensors, dtype):
    found = read({name: one.astype(dtype) for name, one in tensors.items()})
    names = [source.replace("{layer}", "1") for source in scorer_sources().values()]
    parts = [values_of(found[name]) for name in names]
    assert [one.shape for one in parts] == [(24, 32), (24, 16), (24, 16), (2, 24)]
    np.testing.assert_array_equal(np.concatenate(parts[:3], axis=1), tensors[FC1].astype(dtype))
    np.testing.assert_array_equal(parts[3], tensors[FC2].astype(dtype))
    assert hidden_features(found) == 24
    assert hidden_features({}) == 0


def test_what_a_file_must_have(read, tensors):
    with pytest.raises(CheckpointError, match=f"has no tensor '{FC2}'"):
        read({name: one for name, one in tensors.items() if name != FC2})
    with pytest.raises(CheckpointError, match=r"is f32 \[24, 60\]; accepted: f32, f16, bf16 .24, "):
        read(tensors | {FC1: tensors[FC1][:, :60].copy()})
    with pytest.raises(CheckpointError, match=r"is i32 \[2, 24\]; accepted: f32"):
        read(tensors | {FC2: tensors[FC2].astype(np.int32)})
