"""Opening the files of a checkpoint: regular files only, mapped read-only, JSON with limits."""

import json
import stat
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from nybble.frontend.checkpoint.errors import CheckpointError, quoted

MAX_JSON_BYTES = 32 << 20


def file_size(path: Path) -> int:
    """Size in bytes of the regular file at `path` (links followed); CheckpointError otherwise."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"cannot be read: {_reason(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(path, "is not a regular file")
    if status.st_size == 0:
        raise CheckpointError(path, "is empty (0 bytes)")
    return status.st_size


def map_file(path: Path) -> NDArray[np.uint8]:
    """The whole file as a read-only, memory-mapped uint8 [size] array.

    The map stays valid only while nobody truncates the file, as with every mapped file.
    """
    file_size(path)
    try:
        return np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"cannot be mapped: {_reason(error)}") from None


def read_text(path: Path, limit: int = MAX_JSON_BYTES) -> str:
    """The UTF-8 text of the file at `path`, of at most `limit` bytes."""
    size = file_size(path)
    if size > limit:
        raise CheckpointError(path, f"holds {size} bytes; at most {limit} are accepted")
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
        return data.decode("utf-8")
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {_reason(error)}") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(path, "is not UTF-8 text", error.start) from None


def read_json_object(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object in the file at `path`; see `parse_json_object`."""
    return parse_json_object(read_text(path, limit), path)


def parse_json_object(text: str, path: Path) -> dict[str, Any]:
    """The JSON object in `text`, read from `path`: unique keys, finite numbers, bounded depth."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = dict(pairs)
        if len(seen) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise CheckpointError(path, f"key {quoted(twice)} appears twice in one JSON object")
        return seen

    def refuse(constant: str) -> NoReturn:
        raise CheckpointError(path, f"holds {constant}; JSON numbers must be finite")

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise CheckpointError(path, f"is not JSON: {error.msg}", error.pos) from None
    except RecursionError:
        raise CheckpointError(path, "nests JSON arrays or objects too deeply") from None
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(path, f"is not JSON that can be read: {quoted(str(error))}") from None
    if not isinstance(value, dict):
        raise CheckpointError(path, f"holds a JSON {type(value).__name__}; expected an object")
    return value


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
