"""The tensor table of a GGUF file: shapes, types and byte ranges, each checked before use."""

import math
from dataclasses import dataclass
from itertools import pairwise

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from nybble.frontend.checkpoint.cursor import Cursor
from nybble.frontend.checkpoint.errors import CheckpointError, quoted

MAX_TENSORS = 1 << 16
MAX_NAME_BYTES = 255
MAX_DIMENSIONS = 4  # ggml's GGML_MAX_DIMS
MAX_ELEMENTS = (1 << 63) - 1
_SMALLEST_ENTRY_BYTES = 8 + 1 + 4 + 8 + 4 + 8


@dataclass(frozen=True)
class GgufTensor:
    """One tensor as stored: `shape` is row-major (the file's order reversed), offsets are in bytes.

    `offset` counts from the start of the file once the table is placed; `described_at` is where the
    table's entry stands, for messages.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    row_bytes: int
    offset: int
    described_at: int

    @property
    def rows(self) -> int:
        """Number of rows of `shape[-1]` elements."""
        return math.prod(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        """Bytes of data in the file."""
        return self.rows * self.row_bytes


def read_tensor_count(cursor: Cursor) -> int:
    """The header's number of tensors, checked against the bytes that are left."""
    return cursor.count("number of tensors", _SMALLEST_ENTRY_BYTES, MAX_TENSORS)


def read_tensor_table(cursor: Cursor, count: int) -> list[GgufTensor]:
    """Read `count` entries, with offsets still relative to the data section."""
    found: dict[str, GgufTensor] = {}
    for _ in range(count):
        tensor = _read_entry(cursor)
        if tensor.name in found:
            cursor.fail(f"tensor {quoted(tensor.name)} appears twice", tensor.described_at)
        found[tensor.name] = tensor
    return list(found.values())


def _read_entry(cursor: Cursor) -> GgufTensor:
    start = cursor.position
    name = cursor.string("tensor name", MAX_NAME_BYTES)
    if not name:
        cursor.fail("tensor name is empty", start)
    what = f"tensor {quoted(name)}"
    shape = _read_shape(cursor, what)
    kind = _read_type(cursor, what)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if shape[-1] % block:
        cursor.fail(
            f"{what} has rows of {shape[-1]} elements; {kind.name} needs a multiple of {block}",
            start,
        )
    row_bytes = shape[-1] // block * block_bytes
    if math.prod(shape[:-1]) * row_bytes > MAX_ELEMENTS:
        cursor.fail(f"{what} of shape {shape} and type {kind.name} overflows 63 bits", start)
    offset = cursor.u64(f"offset of {what}")
    return GgufTensor(name, kind.name.lower(), shape, row_bytes, offset, start)


def _read_shape(cursor: Cursor, what: str) -> tuple[int, ...]:
    start = cursor.position
    rank = cursor.u32(f"number of dimensions of {what}")
    if not 1 <= rank <= MAX_DIMENSIONS:
        cursor.fail(f"{what} has {rank} dimensions; 1 to {MAX_DIMENSIONS} are accepted", start)
    dimensions = [cursor.u64(f"dimension {axis} of {what}") for axis in range(rank)]
    if 0 in dimensions or math.prod(dimensions) > MAX_ELEMENTS:
        cursor.fail(
            f"{what} has dimensions {dimensions}; each must be at least 1 and their product at "
            f"most {MAX_ELEMENTS}",
            start,
        )
    return tuple(reversed(dimensions))


def _read_type(cursor: Cursor, what: str) -> GGMLQuantizationType:
    start = cursor.position
    number = cursor.u32(f"type of {what}")
    try:
        return GGMLQuantizationType(number)
    except ValueError:
        names = ", ".join(f"{kind.value} {kind.name}" for kind in GGMLQuantizationType)
        cursor.fail(f"type of {what} is {number}; known types: {names}", start)


def place_tensors(
    path: str, tensors: list[GgufTensor], data_start: int, alignment: int, file_size: int
) -> dict[str, GgufTensor]:
    """Make offsets absolute, after checking alignment, range in the file and overlap."""
    placed: dict[str, GgufTensor] = {}
    for tensor in tensors:
        what = f"tensor {quoted(tensor.name)}"
        if tensor.offset % alignment:
            message = f"{what} has offset {tensor.offset}; a multiple of {alignment} is needed"
            raise CheckpointError(path, message, tensor.described_at)
        start = data_start + tensor.offset
        if start + tensor.nbytes > file_size:
            message = (
                f"{what} spans bytes {start} to {start + tensor.nbytes} of a file of {file_size} "
                "bytes: truncated?"
            )
            raise CheckpointError(path, message, tensor.described_at)
        placed[tensor.name] = GgufTensor(
            tensor.name, tensor.format, tensor.shape, tensor.row_bytes, start, tensor.described_at
        )
    _check_overlap(path, sorted(placed.values(), key=lambda tensor: tensor.offset))
    return placed


def _check_overlap(path: str, in_order: list[GgufTensor]) -> None:
    for before, after in pairwise(in_order):
        if before.offset + before.nbytes > after.offset:
            message = (
                f"tensors {quoted(before.name)} and {quoted(after.name)} overlap: the first ends "
                f"at byte {before.offset + before.nbytes}, the second starts at {after.offset}"
            )
            raise CheckpointError(path, message, after.described_at)
