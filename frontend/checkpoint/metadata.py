"""The key-value section of a GGUF file, and typed look-ups in it.

Source: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Arrays of
arrays are in the specification and in no known model; they are rejected, as llama.cpp does.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from gguf.constants import GGUFValueType as ValueType
from numpy.typing import NDArray

from nybble.frontend.checkpoint.cursor import Cursor
from nybble.frontend.checkpoint.errors import CheckpointError, quoted

MAX_KEYS = 1 << 16
MAX_KEY_BYTES = (1 << 16) - 1
MAX_ARRAY_ITEMS = 1 << 26
_SMALLEST_PAIR_BYTES = 8 + 1 + 4 + 1

Value = bool | int | float | str | tuple[str, ...] | NDArray[np.generic]

_NUMBERS: Mapping[ValueType, str] = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT32: "f",
    ValueType.FLOAT64: "d",
    ValueType.BOOL: "B",
}


def read_metadata(cursor: Cursor, count: int) -> dict[str, Value]:
    """Read `count` pairs. Numeric arrays come as read-only numpy views, string arrays as tuples."""
    found: dict[str, Value] = {}
    for _ in range(count):
        start = cursor.position
        key = cursor.string("metadata key", MAX_KEY_BYTES)
        if not key:
            cursor.fail("metadata key is empty", start)
        if key in found:
            cursor.fail(f"metadata key {quoted(key)} appears twice", start)
        found[key] = _read_value(cursor, key)
    return found


def read_pair_count(cursor: Cursor) -> int:
    """The header's number of metadata pairs, checked against the bytes that are left."""
    return cursor.count("number of metadata pairs", _SMALLEST_PAIR_BYTES, MAX_KEYS)


def _read_type(cursor: Cursor, what: str) -> ValueType:
    start = cursor.position
    number = cursor.u32(f"type of {what}")
    try:
        return ValueType(number)
    except ValueError:
        cursor.fail(f"type of {what} is {number}; 0 to {max(ValueType)} are defined", start)


def _read_value(cursor: Cursor, key: str) -> Value:
    what = f"metadata {quoted(key)}"
    kind = _read_type(cursor, what)
    if kind is ValueType.ARRAY:
        return _read_array(cursor, what)
    if kind is ValueType.STRING:
        return cursor.string(what)
    start = cursor.position
    value = cursor.scalar(struct.Struct(f"<{_NUMBERS[kind]}"), what)
    if kind is not ValueType.BOOL:
        return value
    if value > 1:
        cursor.fail(f"{what} is the bool {value}; 0 or 1 is accepted", start)
    return bool(value)


def _read_array(cursor: Cursor, what: str) -> Value:
    start = cursor.position
    kind = _read_type(cursor, f"elements of {what}")
    if kind is ValueType.ARRAY:
        cursor.fail(f"{what} is an array of arrays; one level is accepted", start)
    if kind is ValueType.STRING:
        return cursor.strings(cursor.count(f"length of {what}", 8, MAX_ARRAY_ITEMS), what)
    dtype = np.dtype(f"<{_NUMBERS[kind]}")
    count = cursor.count(f"length of {what}", dtype.itemsize, MAX_ARRAY_ITEMS)
    values = cursor.numbers(dtype, count, what)
    return values.astype(np.bool_) if kind is ValueType.BOOL else values


@dataclass(frozen=True)
class Metadata:
    """Typed look-ups in the pairs of one file; each raises CheckpointError naming key and value."""

    path: str
    pairs: Mapping[str, Value]

    def fail(self, key: str, accepted: str) -> CheckpointError:
        """The error for a `key` that is missing or whose value is not what was `accepted`."""
        if key not in self.pairs:
            return CheckpointError(self.path, f"metadata {quoted(key)} is missing: {accepted}")
        value = quoted(self.pairs[key])
        return CheckpointError(self.path, f"metadata {quoted(key)} is {value}: {accepted}")

    def text(self, key: str) -> str:
        """The string at `key`."""
        value = self.pairs.get(key)
        if not isinstance(value, str):
            raise self.fail(key, "a string is needed")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """The integer at `key`; an array counts when all its elements are the same integer."""
        value = self.pairs.get(key, default)
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and len(value):
            if (value != value[0]).any():
                raise self.fail(key, "one value for all layers is supported")
            return int(value[0])
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.fail(key, "an integer is needed")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """The finite number at `key`."""
        value = self.pairs.get(key, default)
        if (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not math.isfinite(value)
        ):
            raise self.fail(key, "a finite number is needed")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """The bool at `key`."""
        value = self.pairs.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "a bool is needed")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        """The array of strings at `key`."""
        value = self.pairs.get(key)
        if not isinstance(value, tuple):
            raise self.fail(key, "an array of strings is needed")
        return value

    def integers(self, key: str) -> NDArray[np.int64]:
        """The array of integers at `key`, widened; the type in the file may be any integer type."""
        value = self.pairs.get(key)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
            raise self.fail(key, "an array of integers is needed")
        return value.astype(np.int64)

    def floats(self, key: str) -> NDArray[np.float32]:
        """The array of floats at `key`, as float32."""
        value = self.pairs.get(key)
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            raise self.fail(key, "an array of floats is needed")
        return value.astype(np.float32)
