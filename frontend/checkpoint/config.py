"""The configuration of a model as transformers' keyword arguments, checked entry by entry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nybble.frontend.checkpoint.architectures import Architecture
from nybble.frontend.checkpoint.errors import CheckpointError
from nybble.frontend.checkpoint.fields import Fields
from nybble.frontend.checkpoint.rope import MAX_CONTEXT, checked_rope

MAX_LAYERS = 1024
MAX_VOCABULARY = 1 << 24
_MAX_WIDTH = 1 << 20
_MAX_HEADS = 1 << 14
_MAX_HEAD = 1 << 13
_LAYER_KINDS = ("full_attention", "sliding_attention")
_COMMON_DEFAULTS = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_theta": 1e4}
_UNSUPPORTED = ("compression_config", "use_bidirectional_attention", "num_experts")


def checked_config(
    path: Path, architecture: Architecture, values: Mapping[str, Any]
) -> dict[str, Any]:
    """The keyword arguments of the transformers configuration that `values` describe.

    `values` are the entries of a config.json, in the form of transformers 4 or 5. Entries that do
    not change what the model computes are dropped; those that are not supported raise.
    """
    defaults = {**_COMMON_DEFAULTS, **architecture.defaults}
    fields = Fields(path, values, defaults)
    for key in _UNSUPPORTED:
        if fields.get(key):
            raise fields.fail(key, "absent (not supported)")
    config: dict[str, Any] = {"model_type": architecture.model_type, **_sizes(fields)}
    config["max_position_embeddings"] = fields.integer("max_position_embeddings", 1, MAX_CONTEXT)
    config["rms_norm_eps"] = fields.number("rms_norm_eps", 0.0, 1.0)
    config["tie_word_embeddings"] = fields.flag("tie_word_embeddings")
    for key, name in architecture.activation.items():
        config[key] = name if fields.get(key) is None else fields.choice(key, (name,))
    for key in architecture.optional_bias:
        config[key] = fields.flag(key)
    for key in ("bos_token_id", "eos_token_id"):
        config[key] = fields.ids(key, config["vocab_size"])
    config.update(_windows(fields, architecture, config["num_hidden_layers"]))
    if architecture.name == "gemma3":
        config.update(_gemma(fields))
    else:
        old, new = fields.inner("rope_scaling"), fields.inner("rope_parameters")
        config["rope_parameters"] = _rope(fields, old, new, "rope_theta")
    return config


def _sizes(fields: Fields) -> dict[str, int]:
    hidden = fields.integer("hidden_size", 1, _MAX_WIDTH)
    heads = fields.integer("num_attention_heads", 1, _MAX_HEADS)
    derived = {"num_key_value_heads": heads, "head_dim": hidden // heads}
    filled = Fields(fields.path, fields.values, {**derived, **fields.defaults})
    sizes = {
        "vocab_size": fields.integer("vocab_size", 1, MAX_VOCABULARY),
        "hidden_size": hidden,
        "intermediate_size": fields.integer("intermediate_size", 1, _MAX_WIDTH),
        "num_hidden_layers": fields.integer("num_hidden_layers", 1, MAX_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": filled.integer("num_key_value_heads", 1, heads),
        "head_dim": filled.integer("head_dim", 2, _MAX_HEAD),
    }
    if heads % sizes["num_key_value_heads"]:
        raise filled.fail("num_key_value_heads", f"a divisor of the {heads} attention heads")
    if sizes["head_dim"] % 2:
        raise filled.fail("head_dim", "an even number")
    return sizes


def _rope(fields: Fields, old: Fields, new: Fields, theta_key: str) -> dict[str, Any]:
    """One rope entry: from `new` (transformers 5), `old` (rope_scaling) and top-level entries."""
    outer = {
        "rope_theta": fields.get(theta_key),
        "partial_rotary_factor": fields.get("partial_rotary_factor") or 1.0,
        "original_max_position_embeddings": fields.get("max_position_embeddings"),
    }
    return checked_rope(Fields(fields.path, {**old.values, **new.values}, outer))


def _windows(fields: Fields, architecture: Architecture, layers: int) -> dict[str, Any]:
    if architecture.window == "none":
        return {}
    if architecture.window == "all":
        given = "sliding_window" in fields.values and fields.values["sliding_window"] is None
        return {"sliding_window": None if given else _window(fields)}
    kinds = _layer_kinds(fields, architecture, layers)
    found: dict[str, Any] = {"layer_types": kinds, "sliding_window": None}
    if "sliding_attention" in kinds:
        found["sliding_window"] = _window(fields)
    if architecture.name != "gemma3":
        found["use_sliding_window"] = found["sliding_window"] is not None
    return found


def _window(fields: Fields) -> int:
    return fields.integer("sliding_window", 1, MAX_CONTEXT)


def _layer_kinds(fields: Fields, architecture: Architecture, layers: int) -> list[str]:
    kinds = fields.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != layers:
            raise fields.fail("layer_types", f"a list of {layers} names")
        if any(kind not in _LAYER_KINDS for kind in kinds):
            raise fields.fail("layer_types", f"names out of {', '.join(_LAYER_KINDS)}")
        return kinds
    if architecture.name == "gemma3":
        period = fields.integer("sliding_window_pattern", 1, MAX_LAYERS)
        return [_LAYER_KINDS[(index + 1) % period > 0] for index in range(layers)]
    if not fields.flag("use_sliding_window"):
        return [_LAYER_KINDS[0]] * layers
    full = fields.integer("max_window_layers", 0, MAX_LAYERS)
    return [_LAYER_KINDS[index >= full] for index in range(layers)]


def _gemma(fields: Fields) -> dict[str, Any]:
    old, new = fields.inner("rope_scaling"), fields.inner("rope_parameters")
    none = Fields(fields.path, {}, {})
    found: dict[str, Any] = {
        "query_pre_attn_scalar": fields.integer("query_pre_attn_scalar", 1, _MAX_WIDTH),
        "rope_parameters": {
            "full_attention": _rope(fields, old, new.inner("full_attention"), "rope_theta"),
            "sliding_attention": _rope(
                fields, none, new.inner("sliding_attention"), "rope_local_base_freq"
            ),
        },
    }
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        found[key] = None if fields.get(key) is None else fields.number(key, 1e-3, 1e6)
    return found


def require_shape(path: Path, name: str, found: tuple[int, ...], needed: tuple[int, ...]) -> None:
    """Raise CheckpointError unless tensor `name` has the shape that the configuration needs."""
    if found != needed:
        message = f"tensor {name} has shape {list(found)}; the configuration needs {list(needed)}"
        raise CheckpointError(path, message)
