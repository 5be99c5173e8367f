"""What differs between the supported decoder architectures, as data, and their parameter shapes.

Sources: the model definitions of transformers 5.23 (names, shapes), llama.cpp's converter (names in
GGUF files, the permutation of q and k rows, the +1 on Gemma's norms).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from nybble.frontend.checkpoint.errors import CheckpointError, quoted

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
FINAL_NORM = "model.norm.weight"

Window = Literal["none", "all", "layers"]


def _table(**entries: str) -> Mapping[str, str]:
    return MappingProxyType(entries)


@dataclass(frozen=True)
class Architecture:
    """One decoder family. `layer_norms` maps a norm's name in transformers to its name in GGUF.

    `norm_offset` is what a GGUF file adds to norm weights; `permuted_qk` says that it interleaves
    the halves of each head's q and k rows. `qkv_bias`: those three always have a bias.
    `optional_bias`: the biases that a configuration may switch on. `window`: which layers may have
    a sliding window. `defaults`: what transformers takes for what a config.json leaves out.
    """

    name: str
    model_type: str
    layer_norms: Mapping[str, str]
    head_norms: bool = False
    qkv_bias: bool = False
    optional_bias: tuple[str, ...] = ()
    permuted_qk: bool = False
    norm_offset: float = 0.0
    activation: Mapping[str, str] = field(default_factory=lambda: _table(hidden_act="silu"))
    window: Window = "none"
    defaults: Mapping[str, Any] = field(default_factory=dict)


_TWO_NORMS = _table(input_layernorm="attn_norm", post_attention_layernorm="ffn_norm")
_FOUR_NORMS = _table(
    input_layernorm="attn_norm",
    post_attention_layernorm="post_attention_norm",
    pre_feedforward_layernorm="ffn_norm",
    post_feedforward_layernorm="post_ffw_norm",
)

_LLAMA = Architecture(
    "llama",
    "llama",
    _TWO_NORMS,
    optional_bias=("attention_bias", "mlp_bias"),
    permuted_qk=True,
    defaults={"max_position_embeddings": 2048},
)
_MISTRAL = Architecture(
    "mistral",
    "mistral",
    _TWO_NORMS,
    permuted_qk=True,
    window="all",
    defaults={"max_position_embeddings": 4096 * 32, "sliding_window": 4096},
)
_QWEN2 = Architecture(
    "qwen2",
    "qwen2",
    _TWO_NORMS,
    qkv_bias=True,
    window="layers",
    defaults={"max_position_embeddings": 32768, "max_window_layers": 28, "sliding_window": 4096},
)
_QWEN3 = Architecture(
    "qwen3",
    "qwen3",
    _TWO_NORMS,
    head_norms=True,
    optional_bias=("attention_bias",),
    window="layers",
    defaults={**_QWEN2.defaults, "head_dim": 128},
)
_GEMMA3 = Architecture(
    "gemma3",
    "gemma3_text",
    _FOUR_NORMS,
    head_norms=True,
    optional_bias=("attention_bias",),
    norm_offset=1.0,
    activation=_table(hidden_activation="gelu_pytorch_tanh"),
    window="layers",
    defaults={
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
    },
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {item.name: item for item in (_LLAMA, _MISTRAL, _QWEN2, _QWEN3, _GEMMA3)}
)


def architecture_named(path: Path, name: str) -> Architecture:
    """The supported architecture `name`, as a GGUF file or a config.json spells it."""
    for item in ARCHITECTURES.values():
        if name in (item.name, item.model_type):
            return item
    supported = ", ".join(ARCHITECTURES)
    raise CheckpointError(
        path, f"architecture {quoted(name)} is not supported; these are: {supported}"
    )


_PROJECTIONS = _table(
    q_proj="attn_q",
    k_proj="attn_k",
    v_proj="attn_v",
    o_proj="attn_output",
    gate_proj="ffn_gate",
    up_proj="ffn_up",
    down_proj="ffn_down",
)
_HEAD_NORMS = _table(q_norm="attn_q_norm", k_norm="attn_k_norm")


@dataclass(frozen=True)
class Parameter:
    """One parameter: its `name` in transformers, in GGUF (`stored`), and its row-major `shape`."""

    name: str
    stored: str
    shape: tuple[int, ...]

    @property
    def is_norm(self) -> bool:
        """Whether it is the scale of an RMSNorm."""
        return self.name.endswith("norm.weight")


def parameters(architecture: Architecture, config: Mapping[str, Any]) -> list[Parameter]:
    """Every parameter that a model of this configuration has, lm_head included even when tied."""
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    found = [
        Parameter(EMBEDDING, "token_embd.weight", (vocabulary, hidden)),
        Parameter(FINAL_NORM, "output_norm.weight", (hidden,)),
        Parameter(HEAD, "output.weight", (vocabulary, hidden)),
    ]
    layer = _layer_parameters(architecture, config)
    for index in range(config["num_hidden_layers"]):
        found += [
            Parameter(f"model.layers.{index}.{one.name}", f"blk.{index}.{one.stored}", one.shape)
            for one in layer
        ]
    return found


def _layer_parameters(architecture: Architecture, config: Mapping[str, Any]) -> list[Parameter]:
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries = config["num_attention_heads"] * head
    keys = config["num_key_value_heads"] * head
    shapes = {
        "self_attn": {
            "q_proj": (queries, hidden),
            "k_proj": (keys, hidden),
            "v_proj": (keys, hidden),
            "o_proj": (hidden, queries),
        },
        "mlp": {
            "gate_proj": (inner, hidden),
            "up_proj": (inner, hidden),
            "down_proj": (hidden, inner),
        },
    }
    biased = _biased(architecture, config)
    found: list[Parameter] = []
    for group, members in shapes.items():
        for name, shape in members.items():
            stored = _PROJECTIONS[name]
            found.append(Parameter(f"{group}.{name}.weight", f"{stored}.weight", shape))
            if name in biased:
                found.append(Parameter(f"{group}.{name}.bias", f"{stored}.bias", shape[:1]))
    for name, stored in architecture.layer_norms.items():
        found.append(Parameter(f"{name}.weight", f"{stored}.weight", (hidden,)))
    if architecture.head_norms:
        for name, stored in _HEAD_NORMS.items():
            found.append(Parameter(f"self_attn.{name}.weight", f"{stored}.weight", (head,)))
    return found


def _biased(architecture: Architecture, config: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    if architecture.qkv_bias:
        found |= {"q_proj", "k_proj", "v_proj"}
    if config.get("attention_bias"):
        found |= {"q_proj", "k_proj", "v_proj", "o_proj"}
    if config.get("mlp_bias"):
        found |= {"gate_proj", "up_proj", "down_proj"}
    return found
