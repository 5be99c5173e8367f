"""A memory-mapped reader of GGUF files, versions 2 and 3, that trusts nothing in them.

Source: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf.constants import GGUF_DEFAULT_ALIGNMENT, GGUF_MAGIC
from numpy.typing import NDArray

from nybble.frontend.checkpoint.cursor import Cursor
from nybble.frontend.checkpoint.errors import quoted
from nybble.frontend.checkpoint.files import map_file
from nybble.frontend.checkpoint.metadata import Metadata, read_metadata, read_pair_count
from nybble.frontend.checkpoint.tensor_table import (
    GgufTensor,
    place_tensors,
    read_tensor_count,
    read_tensor_table,
)

VERSIONS = (2, 3)
MAX_HEADER_BYTES = 256 << 20
MAX_ALIGNMENT = 1 << 16
_ALIGNMENT_KEY = "general.alignment"


@dataclass(frozen=True)
class GgufFile:
    """A checked GGUF file: metadata, tensor table, and `data`, the mapped uint8 [size] bytes."""

    path: Path
    version: int
    metadata: Metadata
    tensors: Mapping[str, GgufTensor]
    data: NDArray[np.uint8]

    def rows(self, name: str) -> NDArray[np.uint8]:
        """Tensor `name` as a read-only uint8 [rows, row_bytes] view of the mapped file."""
        tensor = self.tensors[name]
        end = tensor.offset + tensor.nbytes
        return self.data[tensor.offset : end].reshape(tensor.rows, tensor.row_bytes)


def read_gguf(path: Path) -> GgufFile:
    """Map and check the GGUF file at `path`; CheckpointError says where and why it is bad."""
    data = map_file(path)
    cursor = Cursor(str(path), data, MAX_HEADER_BYTES)
    version = _read_version(cursor)
    tensor_count = read_tensor_count(cursor)
    metadata = Metadata(str(path), read_metadata(cursor, read_pair_count(cursor)))
    alignment = _alignment(metadata)
    table = read_tensor_table(cursor, tensor_count)
    data_start = -(-cursor.position // alignment) * alignment
    tensors = place_tensors(str(path), table, data_start, alignment, len(data))
    return GgufFile(path, version, metadata, tensors, data)


def _read_version(cursor: Cursor) -> int:
    magic = cursor.u32("magic number")
    if magic != GGUF_MAGIC:
        found = quoted(magic.to_bytes(4, "little"))
        cursor.fail(f"starts with {found}; a GGUF file starts with b'GGUF'", 0)
    version = cursor.u32("version")
    if version & 0xFFFF == 0 and version:
        cursor.fail("is a big-endian GGUF file; little-endian files are accepted", 4)
    if version not in VERSIONS:
        cursor.fail(f"is GGUF version {version}; versions 2 and 3 are accepted", 4)
    return version


def _alignment(metadata: Metadata) -> int:
    alignment = metadata.integer(_ALIGNMENT_KEY, GGUF_DEFAULT_ALIGNMENT)
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise metadata.fail(_ALIGNMENT_KEY, f"a power of two up to {MAX_ALIGNMENT} is needed")
    return alignment
