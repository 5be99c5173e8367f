"""A GGUF file's metadata as the entries of a config.json."""

import math
from typing import Any

import numpy as np

from nybble.frontend.checkpoint.architectures import Architecture
from nybble.frontend.checkpoint.config import MAX_LAYERS
from nybble.frontend.checkpoint.errors import CheckpointError, listed
from nybble.frontend.checkpoint.gguf import GgufFile
from nybble.frontend.checkpoint.metadata import Metadata
from nybble.frontend.checkpoint.rope import llama3_from_factors

ROPE_FACTORS = "rope_freqs.weight"
_GEMMA_27B_LAYERS = 62
_SCALING = ("none", "linear", "yarn")
_UNSUPPORTED = (
    "expert_count",
    "attention.clamp_kqv",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
)


def config_values(file: GgufFile, architecture: Architecture) -> dict[str, Any]:
    """The config.json entries that the metadata and the tensor table of `file` state, unchecked."""
    metadata, prefix = file.metadata, architecture.name
    _refuse_unsupported(metadata, prefix)
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise CheckpointError(file.path, "tensor token_embd.weight is missing")
    heads = metadata.integer(f"{prefix}.attention.head_count")
    hidden = metadata.integer(f"{prefix}.embedding_length")
    share = hidden // max(heads, 1)
    values: dict[str, Any] = {
        "vocab_size": metadata.integer(f"{prefix}.vocab_size", embedding.shape[0]),
        "hidden_size": hidden,
        "intermediate_size": metadata.integer(f"{prefix}.feed_forward_length"),
        "num_hidden_layers": metadata.integer(f"{prefix}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.integer(f"{prefix}.attention.head_count_kv", heads),
        "head_dim": metadata.integer(f"{prefix}.attention.key_length", share),
        "max_position_embeddings": metadata.integer(f"{prefix}.context_length"),
        "rms_norm_eps": metadata.number(f"{prefix}.attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": "blk.0.attn_output.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_down.bias" in file.tensors,
        **_token_ids(metadata),
        **_windows(metadata, prefix, architecture),
    }
    _check_head_length(metadata, prefix, values["head_dim"])
    values.update(_rope(file, prefix, architecture))
    if prefix == "gemma3":
        scaled = values["num_hidden_layers"] == _GEMMA_27B_LAYERS
        values["query_pre_attn_scalar"] = share if scaled else values["head_dim"]
    return values


def _refuse_unsupported(metadata: Metadata, prefix: str) -> None:
    found = [key for key in _UNSUPPORTED if metadata.pairs.get(f"{prefix}.{key}")]
    if found:
        message = f"metadata {listed([f'{prefix}.{key}' for key in found])} is not supported"
        raise CheckpointError(metadata.path, message)


def _check_head_length(metadata: Metadata, prefix: str, head: int) -> None:
    for key in ("attention.value_length", "rope.dimension_count"):
        if metadata.integer(f"{prefix}.{key}", head) != head:
            raise metadata.fail(f"{prefix}.{key}", f"the head length {head} is needed")


def _token_ids(metadata: Metadata) -> dict[str, int]:
    keys = {"bos_token_id": "bos", "eos_token_id": "eos"}
    return {
        name: metadata.integer(f"tokenizer.ggml.{key}_token_id")
        for name, key in keys.items()
        if f"tokenizer.ggml.{key}_token_id" in metadata.pairs
    }


def _windows(metadata: Metadata, prefix: str, architecture: Architecture) -> dict[str, Any]:
    key = f"{prefix}.attention.sliding_window"
    window = metadata.integer(key, 0) or None
    if architecture.window == "all":
        return {"sliding_window": window}
    if prefix != "gemma3" and window is not None:
        raise metadata.fail(key, f"no window (not supported in {prefix} files)")
    found: dict[str, Any] = {"sliding_window": window}
    key = f"{key}_pattern"
    pattern = metadata.pairs.get(key)
    if isinstance(pattern, np.ndarray) and pattern.dtype == np.bool_ and len(pattern) <= MAX_LAYERS:
        kinds = ("full_attention", "sliding_attention")
        found["layer_types"] = [kinds[int(sliding)] for sliding in pattern]
    elif pattern is not None:
        found["sliding_window_pattern"] = metadata.integer(key)
    return found


def _rope(file: GgufFile, prefix: str, architecture: Architecture) -> dict[str, Any]:
    metadata = file.metadata
    default = architecture.defaults.get("rope_theta", 1e4)
    theta = metadata.number(f"{prefix}.rope.freq_base", default)
    scaling: dict[str, Any] = {"rope_type": "default"}
    key = f"{prefix}.rope.scaling.type"
    kind = metadata.text(key) if key in metadata.pairs else "none"
    if kind not in _SCALING:
        raise metadata.fail(key, f"one of {', '.join(_SCALING)} is needed")
    if kind != "none":
        scaling = {"rope_type": kind, **_scaling_numbers(metadata, f"{prefix}.rope.scaling")}
    if ROPE_FACTORS in file.tensors:
        scaling = _from_factors(file, theta)
    local = metadata.number(f"{prefix}.rope.freq_base_swa", 1e4)
    return {"rope_theta": theta, "rope_local_base_freq": local, "rope_scaling": scaling}


def _scaling_numbers(metadata: Metadata, prefix: str) -> dict[str, Any]:
    numbers = {
        "factor": "factor",
        "beta_fast": "yarn_beta_fast",
        "beta_slow": "yarn_beta_slow",
    }
    found: dict[str, Any] = {
        name: metadata.number(f"{prefix}.{key}")
        for name, key in numbers.items()
        if f"{prefix}.{key}" in metadata.pairs
    }
    if "factor" in found and metadata.number(f"{prefix}.attn_factor", 1.0) != 1.0:
        # llama.cpp multiplies YaRN's default by it; transformers takes the product.
        default = 0.1 * math.log(max(found["factor"], 1.0)) + 1.0
        found["attention_factor"] = default * metadata.number(f"{prefix}.attn_factor")
    key = f"{prefix}.original_context_length"
    if key in metadata.pairs:
        found["original_max_position_embeddings"] = metadata.integer(key)
    return found


def _from_factors(file: GgufFile, theta: float) -> dict[str, Any]:
    tensor = file.tensors[ROPE_FACTORS]
    rope = None
    if tensor.format == "f32" and len(tensor.shape) == 1:
        rope = llama3_from_factors(file.rows(ROPE_FACTORS)[0].view("<f4"), theta)
    if rope is None:
        message = f"tensor {ROPE_FACTORS} does not follow Llama 3.1's rule, the supported one"
        raise CheckpointError(file.path, message, tensor.described_at)
    return rope
