"""A GGUF file as a Checkpoint: transformers' names, row order and values, bytes left packed."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from nybble.frontend.checkpoint.architectures import (
    EMBEDDING,
    HEAD,
    Architecture,
    Parameter,
    architecture_named,
    parameters,
)
from nybble.frontend.checkpoint.config import checked_config, require_shape
from nybble.frontend.checkpoint.errors import CheckpointError, listed
from nybble.frontend.checkpoint.gguf import GgufFile, read_gguf
from nybble.frontend.checkpoint.gguf_config import ROPE_FACTORS, config_values
from nybble.frontend.checkpoint.model import Checkpoint, TensorEntry

_FLOATS = ("f32", "f16", "bf16")


def open_gguf(path: Path) -> Checkpoint:
    """The checkpoint in the GGUF file at `path`; CheckpointError when it is not usable."""
    file = read_gguf(path)
    architecture = architecture_named(path, file.metadata.text("general.architecture"))
    config = checked_config(path, architecture, config_values(file, architecture))
    wanted = parameters(architecture, config)
    if config["tie_word_embeddings"]:
        wanted = [item for item in wanted if item.name != HEAD]
    _check_names(file, wanted)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    tensors = {item.name: _entry(file, architecture, item, heads) for item in wanted}
    if HEAD not in tensors:
        shared = tensors[EMBEDDING]
        tensors[HEAD] = TensorEntry(
            HEAD, shared.format, shared.shape, shared.stored_as, shared.read
        )
    return Checkpoint(
        path, architecture.name, MappingProxyType(config), MappingProxyType(tensors), file.metadata
    )


def _check_names(file: GgufFile, wanted: list[Parameter]) -> None:
    stored = {item.stored for item in wanted}
    missing = [name for name in sorted(stored) if name not in file.tensors]
    if missing:
        raise CheckpointError(file.path, f"tensors missing: {listed(missing)}")
    extra = sorted(file.tensors.keys() - stored - {ROPE_FACTORS})
    if extra:
        raise CheckpointError(
            file.path, f"tensors that its architecture does not have: {listed(extra)}"
        )


def _entry(
    file: GgufFile, architecture: Architecture, item: Parameter, heads: dict[str, int]
) -> TensorEntry:
    tensor = file.tensors[item.stored]
    require_shape(file.path, item.stored, tensor.shape, item.shape)
    read: Callable[[], NDArray[np.uint8]] = partial(file.rows, item.stored)
    projection = item.name.split(".")[-2]
    if (len(item.shape) == 1 or item.is_norm) and tensor.format not in _FLOATS:
        message = f"tensor {item.stored} is {tensor.format}; one of {', '.join(_FLOATS)} is needed"
        raise CheckpointError(file.path, message, tensor.described_at)
    if architecture.permuted_qk and projection in heads:
        read = partial(_unpermuted, read, heads[projection], item.shape[0])
    if architecture.norm_offset and item.is_norm:
        if tensor.format != "f32":
            message = f"tensor {item.stored} is {tensor.format}; f32 is needed"
            raise CheckpointError(file.path, message, tensor.described_at)
        read = partial(_shifted, read, architecture.norm_offset)
    return TensorEntry(item.name, tensor.format, item.shape, item.stored, read)


def _unpermuted(read: Callable[[], NDArray[np.uint8]], heads: int, rows: int) -> NDArray[np.uint8]:
    """Undo llama.cpp's interleaving of the two halves of each head's rows, on packed rows."""
    data = read()
    halves = data.reshape(heads, rows // heads // 2, 2, -1)
    return halves.swapaxes(1, 2).reshape(data.shape)


def _shifted(read: Callable[[], NDArray[np.uint8]], offset: float) -> NDArray[np.uint8]:
    """Float32 bytes with `offset` taken off each value."""
    return (read().view("<f4") - np.float32(offset)).view(np.uint8)
