"""Learned heads that say which tokens a cache should keep: a file beside a model's checkpoint.

The names are those of Locret's own files (arXiv:2410.01805, huangyuxiang03/Locret): in each layer
`self_attn.fc1.weight` [hidden, columns of q, k, v] and `self_attn.fc2.weight` [kv_heads, hidden].
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nybble.frontend.checkpoint import Checkpoint, CheckpointError, TensorEntry
from nybble.frontend.checkpoint.safetensors_file import StoredTensor, read_safetensors
from nybble.frontend.graph import LAYER
from nybble.frontend.requantize import FLOATS, values_of

FIRST = f"model.layers.{LAYER}.self_attn.fc1.weight"
SECOND = f"model.layers.{LAYER}.self_attn.fc2.weight"
PARTS = ("q", "k", "v")


def scorer_sources() -> Mapping[str, str]:
    """Arguments of a scorer, in order -> their parameters: columns of FIRST, then SECOND."""
    return {f"scorer_{part}": f"{FIRST}:{part}" for part in PARTS} | {"scorer_out": SECOND}


def hidden_features(tensors: Mapping[str, TensorEntry]) -> int:
    """Features of a model's scorers; 0 where it has none."""
    found = tensors.get(SECOND.replace(LAYER, "0"))
    return found.shape[1] if found else 0


def with_scorers(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """The checkpoint with the scorers of all layers from a safetensors file, as f32.

    Raises CheckpointError for a file that is none, and for what is missing in it or does not fit.
    """
    stored, config = read_safetensors(path).tensors, checkpoint.config
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    widths = (heads * dim, kv_heads * dim, kv_heads * dim)
    name = SECOND.replace(LAYER, "0")
    hidden = stored[name].shape[-1] if name in stored else 0
    added: dict[str, TensorEntry] = {}
    for layer in range(config["num_hidden_layers"]):
        first = _entry(path, stored, FIRST.replace(LAYER, str(layer)), (hidden, sum(widths)))
        second = _entry(path, stored, SECOND.replace(LAYER, str(layer)), (kv_heads, hidden))
        starts = np.cumsum((0, *widths)).tolist()
        for part, (start, end) in zip(PARTS, pairwise(starts), strict=True):
            columns = _f32(f"{first.name}:{part}", first, slice(start, end))
            added[columns.name] = columns
        added[second.name] = _f32(second.name, second, slice(None))
    return replace(checkpoint, tensors={**checkpoint.tensors, **added})


def _entry(
    path: Path, stored: Mapping[str, StoredTensor], name: str, shape: tuple[int, int]
) -> TensorEntry:
    tensor = stored.get(name)
    if tensor is None:
        raise CheckpointError(path, f"has no tensor '{name}'")
    if tensor.dtype not in FLOATS or tensor.shape != shape:
        raise CheckpointError(
            path,
            f"tensor '{name}' is {tensor.dtype} {list(tensor.shape)}; accepted: "
            f"{', '.join(FLOATS)} {list(shape)}",
        )
    return TensorEntry(name, tensor.dtype, shape, name, lambda: tensor.data)


def _f32(name: str, entry: TensorEntry, columns: slice) -> TensorEntry:
    """Some columns of a parameter, read when they are asked for."""
    rows, width = entry.shape[0], len(range(*columns.indices(entry.shape[1])))
    read: Callable[[], npt.NDArray[np.uint8]] = partial(_bytes, entry, columns)
    return TensorEntry(name, "f32", (rows, width), name, read)


def _bytes(entry: TensorEntry, columns: slice) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(values_of(entry)[:, columns]).view(np.uint8)
