"""Imports a decoder-only language model: a checkpoint's description to a ModelGraph.

The model is built by transformers on the meta device, so neither weights nor their memory are
needed. One function is exported per distinct decoder layer: layers are the same if the kind of
their attention and the formats and shapes of their parameters are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers.modeling_utils import PreTrainedModel

from nybble.dialects.errors import NybbleError
from nybble.frontend.graph import LAYER, Argument, Dimensions, ModelGraph, Role
from nybble.frontend.pytorch.architectures import (
    Architecture,
    find_architecture,
    layer_type,
    make_config,
    make_meta_model,
    rope_tables,
)
from nybble.frontend.pytorch.bridge import bridged
from nybble.frontend.pytorch.export import Input, Part, TorchModule
from nybble.frontend.pytorch.parts import (
    EMBEDDING,
    FINAL_NORM,
    EmbedPart,
    HeadPart,
    LayerPart,
    head_module,
)
from nybble.frontend.pytorch.storage import MetaStorage, Tensors, find

KV_DTYPES = {"f32": torch.float32, "f16": torch.float16}
EXAMPLE_TOKENS = 3  # not 1: export would take a size of 1 for a constant
META = "meta"


class Source(Protocol):
    """What an import reads of a checkpoint."""

    @property
    def architecture(self) -> str:
        """Hugging Face's model type, "llama"."""
        ...

    @property
    def config(self) -> Mapping[str, object]:
        """The keywords of its Hugging Face configuration."""
        ...

    @property
    def tensors(self) -> Tensors:
        """Parameters by the names of the model's modules."""
        ...


@dataclass(frozen=True)
class Model:
    """A model on the meta device and all that exporting its parts needs.

    config: transformers' configuration object, which has no typed interface.
    """

    architecture: Architecture
    config: Any
    module: PreTrainedModel
    tensors: Tensors
    dimensions: Dimensions


def open_model(source: Source, context: int, kv_dtype: str) -> Model:
    """The model before export; errors as for `import_model`."""
    if kv_dtype not in KV_DTYPES:
        raise NybbleError(f"unknown cache type '{kv_dtype}'", accepted=", ".join(KV_DTYPES))
    architecture = find_architecture(source.architecture)
    config = make_config(architecture, source.config)
    limit = config.max_position_embeddings
    if not 2 <= context <= limit:
        raise NybbleError(
            f"a context of {context} tokens does not fit the model", accepted=f"2 to {limit}"
        )
    dimensions = Dimensions(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None)
        or config.hidden_size // config.num_attention_heads,
        vocabulary=config.vocab_size,
        context=context,
        kv_dtype=kv_dtype,
    )
    module = make_meta_model(architecture, config)
    return Model(architecture, config, module, source.tensors, dimensions)


def import_model(source: Source, context: int, kv_dtype: str) -> ModelGraph:
    """The model at the `import` stage.

    context: number of tokens that the caches hold; kv_dtype: their type, "f32" or "f16".
    Raises NybbleError for an unsupported architecture or option, and for tensors that are absent
    or do not fit the configuration.
    """
    model = open_model(source, context, kv_dtype)
    names = layer_functions(model)
    storage = MetaStorage(model.tensors)
    module = TorchModule()
    functions: dict[str, tuple[Argument, ...]] = {}
    with bridged(model.architecture, model.module):
        parts = [_embed_part(model, storage)]
        parts += [_layer_part(model, storage, name, names) for name in dict.fromkeys(names)]
        parts += [_head_part(model, storage)]
        for part in parts:
            functions[part.name] = module.add(part, context)
    return ModelGraph(
        architecture=source.architecture,
        dimensions=model.dimensions,
        text=module.text(),
        functions=functions,
        embed="embed",
        layers=names,
        head="head",
        constants=rope_constants(model),
    )


def layer_functions(model: Model) -> tuple[str, ...]:
    """For each layer the name of its function; the same for layers that share one."""
    known: dict[object, str] = {}
    return tuple(
        known.setdefault(_signature(model, layer), f"layer_{len(known)}")
        for layer in range(model.dimensions.layers)
    )


def _signature(model: Model, layer: int) -> tuple[object, ...]:
    prefix = f"model.layers.{layer}."
    parameters = model.module.get_submodule(prefix[:-1]).named_parameters()
    formats = [
        (name, find(model.tensors, prefix + name, tuple(value.shape)).format)
        for name, value in parameters
    ]
    return (layer_type(model.config, layer), *formats)


def _table(model: Model, kind: str, table: str) -> str:
    return f"rope.{kind}.{table}" if model.architecture.rope_per_type else f"rope.{table}"


def rope_constants(model: Model) -> dict[str, npt.NDArray[np.float32]]:
    """The rotary tables of every layer type, f32 [context, head_dim / 2]."""
    constants: dict[str, npt.NDArray[np.float32]] = {}
    for kind in {layer_type(model.config, layer) for layer in range(model.dimensions.layers)}:
        tables = rope_tables(model.architecture, model.config, model.dimensions.context, kind)
        for table, values in zip(("cos", "sin"), tables, strict=True):
            constants[_table(model, kind, table)] = values
    return constants


def _embed_part(model: Model, storage: MetaStorage) -> Part:
    ids = torch.empty([1, EXAMPLE_TOKENS], dtype=torch.int32, device=META)
    inputs = [Input(Argument("ids", Role.INPUT), ids, tokens=1)]
    part = EmbedPart(model.module, storage)
    return Part("embed", part, inputs, {"embed_tokens.": f"{EMBEDDING}."})


def _layer_part(model: Model, storage: MetaStorage, name: str, names: tuple[str, ...]) -> Part:
    index = names.index(name)
    size = model.dimensions
    kind = layer_type(model.config, index)
    tables = [
        Input(
            Argument(table, Role.CONSTANT, _table(model, kind, table)),
            torch.empty([size.context, size.head_dim // 2], device=META),
        )
        for table in ("cos", "sin")
    ]
    cache = torch.empty(
        [size.kv_heads, size.context, size.head_dim], dtype=KV_DTYPES[size.kv_dtype], device=META
    )
    inputs = [
        _hidden(model),
        Input(Argument("pos", Role.POSITION), torch.empty([], dtype=torch.int64, device=META)),
        *tables,
        Input(Argument("keys", Role.KEYS), cache),
        Input(Argument("values", Role.VALUES), torch.empty_like(cache)),
    ]
    part = LayerPart(model.module, index, model.architecture, storage)
    return Part(name, part, inputs, {"layer.": f"model.layers.{LAYER}."})


def _head_part(model: Model, storage: MetaStorage) -> Part:
    weight = head_module(model.config)
    part = HeadPart(model.module, weight, model.architecture, storage)
    names = {"norm.": f"{FINAL_NORM}.", "lm_head.": f"{weight}."}
    return Part("head", part, [_hidden(model)], names)


def _hidden(model: Model) -> Input:
    shape = [1, EXAMPLE_TOKENS, model.dimensions.hidden]
    return Input(Argument("hidden", Role.INPUT), torch.empty(shape, device=META), tokens=1)
