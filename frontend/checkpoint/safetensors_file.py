"""One safetensors file: checked by the safetensors library, then mapped.

The library's reader validates the header (sizes, shapes, ranges without gaps or overlap) but copies
what it returns and has no bf16 in numpy, so the byte ranges are taken from the header itself.
Source: https://huggingface.co/docs/safetensors (format).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from nybble.frontend.checkpoint.errors import CheckpointError, quoted
from nybble.frontend.checkpoint.files import map_file, parse_json_object

MAX_HEADER_BYTES = 16 << 20
_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_TYPES = {
    "F32": ("f32", 4),
    "F16": ("f16", 2),
    "BF16": ("bf16", 2),
    "F8_E4M3": ("e4m3", 1),
    "F8_E5M2": ("e5m2", 1),
    "F8_E8M0": ("e8m0", 1),
    "I8": ("i8", 1),
    "U8": ("u8", 1),
    "I32": ("i32", 4),
    "I64": ("i64", 8),
}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of the file: `data` is the read-only, mapped uint8 [rows, row_bytes].

    dtype: "f32", "f16", "bf16", "e4m3", "e5m2", "e8m0", "i8", "u8", "i32" or "i64".
    """

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8] = field(repr=False, compare=False)


@dataclass(frozen=True)
class SafetensorsFile:
    """The tensors of a file, and the texts that its writer put beside them."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]


def read_safetensors(path: Path) -> SafetensorsFile:
    """The file at `path`; CheckpointError for a malformed one and for dtypes of no use here."""
    data = map_file(path)
    header, start = _header(path, data)
    _check_with_library(path)
    body = data[start:]
    metadata = header.pop(_METADATA, None) or {}
    tensors = {name: _tensor(path, name, entry, body) for name, entry in header.items()}
    return SafetensorsFile(tensors, metadata)


def _header(path: Path, data: NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    if len(data) < _LENGTH_BYTES:
        raise CheckpointError(path, f"holds {len(data)} bytes; a safetensors file starts with 8", 0)
    length = int.from_bytes(data[:_LENGTH_BYTES].tobytes(), "little")
    limit = min(MAX_HEADER_BYTES, len(data) - _LENGTH_BYTES)
    if length > limit:
        raise CheckpointError(path, f"header length is {length}; at most {limit} is accepted", 0)
    end = _LENGTH_BYTES + length
    try:
        text = data[_LENGTH_BYTES:end].tobytes().decode("utf-8")
    except UnicodeDecodeError as error:
        offset = _LENGTH_BYTES + error.start
        raise CheckpointError(path, "header is not UTF-8", offset) from None
    return parse_json_object(text, path), end


def _check_with_library(path: Path) -> None:
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(path, f"is not a safetensors file: {quoted(str(error))}") from None


def _tensor(path: Path, name: str, entry: Any, body: NDArray[np.uint8]) -> StoredTensor:
    what = f"tensor {quoted(name)}"
    if not isinstance(entry, Mapping):
        raise CheckpointError(path, f"{what} is described by {quoted(entry)}; expected an object")
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    span: Any = entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _TYPES:
        accepted = ", ".join(_TYPES)
        raise CheckpointError(path, f"{what} has dtype {quoted(dtype)}; accepted: {accepted}")
    if not _sizes(shape) or 0 in shape:
        raise CheckpointError(path, f"{what} has shape {quoted(shape)}; sizes of 1 or more needed")
    name_here, width = _TYPES[dtype]
    size = math.prod(shape) * width
    if not _spans(span, size, len(body)):
        message = f"{what} has data_offsets {quoted(span)}; {size} bytes of {len(body)} needed"
        raise CheckpointError(path, message)
    rows = math.prod(shape[:-1])
    return StoredTensor(name_here, tuple(shape), body[span[0] : span[1]].reshape(rows, -1))


def _spans(value: Any, size: int, available: int) -> bool:
    """Whether `value` is [start, end] of `size` bytes within the `available` ones."""
    if not _sizes(value) or len(value) != 2:
        return False
    start, end = value
    return end - start == size and end <= available


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)
