"""Rotary parameters: checked, and recovered from the divisors that a GGUF file keeps."""

from pathlib import Path

import numpy as np
import pytest

from nybble.frontend.checkpoint import CheckpointError, open_checkpoint
from nybble.frontend.checkpoint.fields import Fields
from nybble.frontend.checkpoint.rope import checked_rope, llama3_factors, llama3_from_factors

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def check(**values):
    return checked_rope(Fields(Path("config.json"), values, {"partial_rotary_factor": 1.0}))


def test_llama3_divisors_equal_transformers():
    utilities = pytest.importorskip(
        "transformers.modeling_rope_utils", reason="oracle: pip install nybble[torch]"
    )
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=512, num_attention_heads=4, head_dim=128, rope_parameters=dict(LLAMA3)
    )
    frequencies, _ = utilities.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1 / 5e5 ** (np.arange(0, 128, 2) / 128)
    np.testing.assert_allclose(plain / frequencies.numpy(), llama3_factors(LLAMA3, 128), rtol=1e-5)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_is_recovered_from_divisors(factor):
    rope = {**LLAMA3, "factor": factor}
    assert llama3_from_factors(llama3_factors(rope, 64), 5e5) == rope


@pytest.mark.parametrize("factors", [[1.0, np.nan], [0.1, 0.2], [1.0, 2.0, 3.0, 4.0]])
def test_other_divisors_are_not_recovered(factors):
    assert llama3_from_factors(np.array(factors, np.float32), 5e5) is None


def test_divisors_in_a_file(model, write):
    file = model("llama").set("llama.rope.freq_base", 5e5)
    file.add("rope_freqs.weight", llama3_factors(LLAMA3, 8))
    assert open_checkpoint(write(file)).config["rope_parameters"] == LLAMA3


def test_accepted():
    assert check(rope_theta=1e4) == {"rope_type": "default", "rope_theta": 1e4}
    assert check(**LLAMA3) == LLAMA3
    yarn = {"type": "yarn", "factor": 4, "original_max_position_embeddings": 64, "beta_fast": 16}
    assert check(rope_theta=1e4, **yarn) == {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 4.0,
        "beta_fast": 16.0,
        "original_max_position_embeddings": 64,
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rope_type": "su"}, "one of default, linear, llama3, yarn"),
        ({"rope_type": ["a"]}, "one of default, linear, llama3, yarn"),
        ({"partial_rotary_factor": 0.5}, "rotation of whole heads"),
        ({}, "'rope_theta' is missing"),
        ({"rope_theta": 10**400}, "a number from 1 to 1e"),
        ({"rope_theta": True}, "a number from 1 to 1e"),
        ({"rope_theta": 1e4, "rope_type": "linear"}, "'factor' is missing"),
        ({**LLAMA3, "high_freq_factor": 1.0}, "more than low_freq_factor"),
        ({**LLAMA3, "original_max_position_embeddings": 0.5}, "an integer from 1"),
    ],
)
def test_rejected(values, message):
    with pytest.raises(CheckpointError, match=message):
        check(**values)
