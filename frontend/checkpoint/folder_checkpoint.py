"""A Hugging Face folder (config.json and safetensors files) as a Checkpoint."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nybble.frontend.checkpoint.architectures import (
    EMBEDDING,
    HEAD,
    Parameter,
    architecture_named,
    parameters,
)
from nybble.frontend.checkpoint.config import checked_config, require_shape
from nybble.frontend.checkpoint.errors import CheckpointError, listed, quoted
from nybble.frontend.checkpoint.fields import Fields
from nybble.frontend.checkpoint.files import read_json_object
from nybble.frontend.checkpoint.model import Checkpoint, TensorEntry
from nybble.frontend.checkpoint.quantized.layer import FLOATS, Decoded
from nybble.frontend.checkpoint.quantized.methods import decode_layers, read_method
from nybble.frontend.checkpoint.safetensors_file import StoredTensor, read_safetensors

MAX_CONFIG_BYTES = 4 << 20
MAX_SHARDS = 1024
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_TEXT_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.lm_head.")
_IGNORED_PARTS = ("rotary_emb.inv_freq", "vision_tower.", "multi_modal_projector.")


def open_folder(path: Path) -> Checkpoint:
    """The checkpoint in the folder at `path`; CheckpointError when it is not usable."""
    described = path / "config.json"
    values = _text_config(read_json_object(described, MAX_CONFIG_BYTES), described)
    kind = values.get("model_type")
    if not isinstance(kind, str):
        raise CheckpointError(described, f"model_type is {quoted(kind)}; a string is needed")
    architecture = architecture_named(described, kind)
    config = checked_config(described, architecture, values)
    wanted = parameters(architecture, config)
    stored, metadata = _stored_tensors(path)
    tied = config["tie_word_embeddings"]
    if tied:
        stored.pop(HEAD, None)
        wanted = [item for item in wanted if item.name != HEAD]
    decoded: dict[str, Decoded] = {}
    if values.get("quantization_config") is not None:
        method = read_method(Fields(described, values, {}).inner("quantization_config"), metadata)
        decoded = decode_layers(path, method, {item.name: item.shape for item in wanted}, stored)
    _check_names(path, wanted, {*stored, *decoded})
    tensors = {item.name: _entry(path, item, stored, decoded) for item in wanted}
    if tied:
        tensors[HEAD] = replace(tensors[EMBEDDING], name=HEAD)
    return Checkpoint(path, architecture.name, MappingProxyType(config), MappingProxyType(tensors))


def _text_config(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The text decoder's part of a multimodal configuration, or `values` themselves."""
    text = values.get("text_config")
    if text is None:
        return values
    if not isinstance(text, dict):
        raise CheckpointError(path, f"text_config is {quoted(text)}; an object is needed")
    shared = ("model_type", "eos_token_id", "quantization_config")
    outer = {key: values[key] for key in shared if key in values}
    return {**outer, **text}


def _stored_tensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Every text tensor in the folder's safetensors files by its plain name, and their metadata."""
    found: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    for file, names in _shards(path).items():
        shard = read_safetensors(path / file)
        metadata |= shard.metadata
        missing = sorted(names - shard.tensors.keys())
        if missing:
            raise CheckpointError(path / file, f"tensors that the index lists: {listed(missing)}")
        for name, tensor in shard.tensors.items():
            if any(part in name for part in _IGNORED_PARTS):
                continue
            plain = _plain_name(name)
            if plain in found:
                raise CheckpointError(path / file, f"tensor {quoted(name)} is in two files")
            found[plain] = tensor
    return found, metadata


def _plain_name(name: str) -> str:
    for prefix in _TEXT_PREFIXES:
        if name.startswith(prefix):
            start = "lm_head." if prefix.endswith("lm_head.") else "model."
            return start + name.removeprefix(prefix)
    return name


def _shards(path: Path) -> dict[str, set[str]]:
    """File name -> the tensors that the index places in it (none listed without an index)."""
    if not (path / _INDEX).exists():
        if not (path / _SINGLE).exists():
            raise CheckpointError(
                path, f"holds neither {_SINGLE} nor {_INDEX}; pickled weights are never read"
            )
        return {_SINGLE: set()}
    index = path / _INDEX
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(index, "weight_map must be an object that names tensors and files")
    shards: dict[str, set[str]] = {}
    for name, file in places.items():
        shards.setdefault(_shard_name(index, file), set()).add(name)
    if len(shards) > MAX_SHARDS:
        raise CheckpointError(index, f"names {len(shards)} files; at most {MAX_SHARDS} accepted")
    return shards


def _shard_name(index: Path, file: object) -> str:
    plain = isinstance(file, str) and file.endswith(".safetensors") and "\0" not in file
    if not isinstance(file, str) or not plain or Path(file).name != file or "\\" in file:
        message = f"names the file {quoted(file)}; a .safetensors file in the same folder is needed"
        raise CheckpointError(index, message)
    return file


def _check_names(path: Path, wanted: list[Parameter], found: set[str]) -> None:
    names = {item.name for item in wanted}
    missing = sorted(names - found)
    if missing:
        raise CheckpointError(path, f"tensors missing: {listed(missing)}")
    extra = sorted(found - names)
    if extra:
        raise CheckpointError(path, f"tensors that its architecture does not have: {listed(extra)}")


def _entry(
    path: Path,
    item: Parameter,
    stored: Mapping[str, StoredTensor],
    decoded: Mapping[str, Decoded],
) -> TensorEntry:
    if item.name in decoded:
        weight = decoded[item.name]
        return TensorEntry(item.name, weight.format, item.shape, item.name, weight.read)
    tensor = stored[item.name]
    if tensor.dtype not in FLOATS:
        accepted = ", ".join(FLOATS)
        message = f"tensor {quoted(item.name)} has dtype {tensor.dtype}; accepted: {accepted}"
        raise CheckpointError(path, message)
    require_shape(path, item.name, tensor.shape, item.shape)
    return TensorEntry(item.name, tensor.dtype, item.shape, item.name, lambda: tensor.data)
