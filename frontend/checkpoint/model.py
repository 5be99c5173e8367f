"""A checkpoint as the rest of the compiler sees it, whatever file format it came from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.frontend.checkpoint.metadata import Metadata


@dataclass(frozen=True)
class TensorEntry:
    """One parameter, not yet read.

    `name` is the parameter's name in transformers, `stored_as` its name in the file (two entries
    with the same `stored_as` share storage: tied embeddings). `format` names a storage format
    ("q4_1", "f32", ..). `shape` is (rows, cols) or (n,). `original` is the parameter in the file,
    if this one is rounded to another format.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    stored_as: str
    read: Callable[[], NDArray[np.uint8]] = field(repr=False, compare=False)
    original: "TensorEntry | None" = field(default=None, repr=False, compare=False)

    def raw(self) -> NDArray[np.uint8]:
        """The stored bytes, read-only uint8 [rows, row_bytes]; a vector counts as one row; of a
        streamed format [n].

        A view of the mapped file, or a copy when the file's order of rows or its values differ
        from those of transformers.
        """
        data = self.read()
        data.flags.writeable = False
        return data


@dataclass(frozen=True)
class Checkpoint:
    """A readable model: keyword arguments of its transformers configuration, and its parameters.

    `path` is the GGUF file or the folder; `metadata` the GGUF metadata, None for a folder.
    """

    path: Path
    architecture: str
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]
    metadata: Metadata | None = None
