"""The model families that can be imported, and their modules as transformers defines them."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from nybble.dialects.errors import NybbleError


@dataclass(frozen=True)
class Architecture:
    """A family: `transformers.models.<package>` and the prefix of its class names.

    unit_offset: its norms multiply by `1 + weight`.
    rope_per_type: layers of different types ("sliding_attention", ..) have tables of their own.
    """

    package: str
    prefix: str
    config: str
    unit_offset: bool = False
    rope_per_type: bool = False

    @property
    def modeling(self) -> ModuleType:
        """The module that defines its layers."""
        return import_module(f"transformers.models.{self.package}.modeling_{self.package}")

    @property
    def norm_class(self) -> type[nn.Module]:
        """The class of its normalization modules."""
        return getattr(self.modeling, f"{self.prefix}RMSNorm")


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("llama", "Llama", "LlamaConfig"),
    "mistral": Architecture("mistral", "Mistral", "MistralConfig"),
    "qwen2": Architecture("qwen2", "Qwen2", "Qwen2Config"),
    "qwen3": Architecture("qwen3", "Qwen3", "Qwen3Config"),
    "gemma3": Architecture(
        "gemma3", "Gemma3", "Gemma3TextConfig", unit_offset=True, rope_per_type=True
    ),
}
ALIASES = {"gemma3_text": "gemma3"}
ACTIVATIONS = ("silu", "gelu_pytorch_tanh")
STATIC_ROPE = ("default", "linear", "llama3", "yarn")


def find_architecture(name: str) -> Architecture:
    """The family called `name`; raises NybbleError naming those that exist."""
    found = ARCHITECTURES.get(ALIASES.get(name, name))
    if found is None:
        raise NybbleError(
            f"unsupported model architecture '{name}'", accepted=", ".join(ARCHITECTURES)
        )
    return found


# The configuration classes of transformers have no common typed interface, hence Any.
def make_config(architecture: Architecture, keywords: Mapping[str, object]) -> Any:
    """The family's configuration object.

    keywords: as in a Hugging Face `config.json`.
    Raises NybbleError for values that transformers rejects or nybble does not support.
    """
    package = f"transformers.models.{architecture.package}"
    module = import_module(f"{package}.configuration_{architecture.package}")
    known = {name: value for name, value in keywords.items() if name != "model_type"}
    try:
        config = getattr(module, architecture.config)(**known)
    except (StrictDataclassError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise NybbleError(f"transformers rejects the model's configuration: {error}") from error
    _check_config(architecture, config)
    return config


def _check_config(architecture: Architecture, config: Any) -> None:
    activation = getattr(config, "hidden_act", None) or config.hidden_activation
    if activation not in ACTIVATIONS:
        raise NybbleError(
            f"unsupported activation function '{activation}'", accepted=", ".join(ACTIVATIONS)
        )
    for option in ("use_bidirectional_attention", "final_logit_softcapping"):
        if getattr(config, option, None):
            raise NybbleError(f"unsupported model option {option} = {getattr(config, option)}")
    for parameters in _rope_parameters(architecture, config):
        kind = parameters["rope_type"]
        if kind not in STATIC_ROPE:
            raise NybbleError(
                f"unsupported rotary embedding type '{kind}'", accepted=", ".join(STATIC_ROPE)
            )


def _rope_parameters(architecture: Architecture, config: Any) -> list[dict[str, Any]]:
    if not architecture.rope_per_type:
        return [config.rope_parameters]
    return [config.rope_parameters[kind] for kind in sorted(set(config.layer_types))]


def make_meta_model(architecture: Architecture, config: Any) -> PreTrainedModel:
    """The whole causal language model with every parameter on the meta device."""
    model_class = getattr(architecture.modeling, f"{architecture.prefix}ForCausalLM")
    with torch.device("meta"):
        model: PreTrainedModel = model_class(config)
    model.eval()
    return model


def layer_type(config: Any, layer: int) -> str:
    """What transformers calls the kind of a layer's attention."""
    types = getattr(config, "layer_types", None)
    return types[layer] if types else "full_attention"


def rope_tables(
    architecture: Architecture, config: Any, context: int, kind: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """cos and sin, f32 [context, head_dim / 2], of a layer type, from transformers' own module."""
    rotary = getattr(architecture.modeling, f"{architecture.prefix}RotaryEmbedding")(config)
    extra = [kind] if architecture.rope_per_type else []
    tables = rotary(torch.empty(0, dtype=torch.float32), torch.arange(context)[None], *extra)
    # Each row holds the D/2 angles twice, for the two halves of a head.
    cos, sin = (table[0].chunk(2, dim=-1)[0].numpy() for table in tables)
    return np.ascontiguousarray(cos), np.ascontiguousarray(sin)
