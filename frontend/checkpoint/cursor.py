"""A forward-only reader over mapped bytes in which no read can leave the buffer.

Every count and length is compared with what is left, and with a fixed limit, before it is used,
so hostile input costs time and memory in proportion to the bytes really present.
"""

import struct
from typing import NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nybble.frontend.checkpoint.errors import CheckpointError, quoted

MAX_STRING_BYTES = 32 << 20
MAX_ARRAY_STRINGS = 2_000_000  # in a whole file; the largest vocabularies have under 1 M

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Cursor:
    """Reads little-endian values in order from `buffer`, uint8 [size], up to `limit` bytes."""

    def __init__(self, path: str, buffer: NDArray[np.uint8], limit: int) -> None:
        self.path = path
        self.position = 0
        self._bytes = buffer.data
        self._end = min(len(buffer), limit)
        self._strings_left = MAX_ARRAY_STRINGS

    def fail(self, message: str, offset: int | None = None) -> NoReturn:
        """Raise a CheckpointError at `offset`, by default where the cursor stands."""
        raise CheckpointError(self.path, message, self.position if offset is None else offset)

    @property
    def left(self) -> int:
        """Bytes that may still be read."""
        return self._end - self.position

    def need(self, size: int, what: str) -> None:
        """Check that `size` more bytes are there for `what`."""
        if size > self.left:
            self.fail(f"{what} needs {size} bytes and {max(self.left, 0)} are left: truncated?")

    def u32(self, what: str) -> int:
        """The next unsigned 32-bit integer."""
        return int(self.scalar(_U32, what))

    def u64(self, what: str) -> int:
        """The next unsigned 64-bit integer."""
        return int(self.scalar(_U64, what))

    def scalar(self, layout: struct.Struct, what: str) -> int | float:
        """The next value of a one-element `layout`."""
        self.need(layout.size, what)
        (value,) = layout.unpack_from(self._bytes, self.position)
        self.position += layout.size
        return value

    def count(self, what: str, smallest: int, limit: int) -> int:
        """A 64-bit count of items of at least `smallest` bytes, that fits what is left."""
        start = self.position
        value = self.u64(what)
        if value > limit:
            self.fail(f"{what} is {value}; at most {limit} are accepted", start)
        if value * smallest > self.left:
            self.fail(
                f"{what} is {value}, which needs at least {value * smallest} bytes; "
                f"{max(self.left, 0)} are left",
                start,
            )
        return value

    def string(self, what: str, limit: int = MAX_STRING_BYTES) -> str:
        """The next length-prefixed UTF-8 string, of at most `limit` bytes."""
        start = self.position
        length = self.count(f"length of {what}", 1, limit)
        data = self._bytes[self.position : self.position + length]
        self.position += length
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError as error:
            self.fail(f"{what} is not UTF-8: {quoted(error.reason)}", start + 8 + error.start)

    def strings(self, count: int, what: str) -> tuple[str, ...]:
        """The next `count` strings; the number read over the cursor's life is bounded."""
        self._strings_left -= count
        if self._strings_left < 0:
            self.fail(f"{what} holds {count} strings; a file may hold {MAX_ARRAY_STRINGS} in all")
        view, position, end, unpack = self._bytes, self.position, self._end, _U64.unpack_from
        found: list[str] = []
        for index in range(count):
            body = position + 8
            length = unpack(view, position)[0] if body <= end else end
            if length > end - body or length > MAX_STRING_BYTES:
                self.fail(
                    f"string {index} of {what} is {length} bytes long; "
                    f"{max(end - body, 0)} are left and {MAX_STRING_BYTES} accepted",
                    position,
                )
            position = body + length
            try:
                found.append(str(view[body:position], "utf-8"))
            except UnicodeDecodeError as error:
                self.fail(f"string {index} of {what} is not UTF-8", body + error.start)
        self.position = position
        return tuple(found)

    def numbers(self, dtype: DTypeLike, count: int, what: str) -> NDArray[np.generic]:
        """The next `count` numbers as a read-only [count] array of little-endian `dtype`."""
        size = np.dtype(dtype).itemsize * count
        self.need(size, what)
        data = np.frombuffer(self._bytes, dtype, count, self.position)
        self.position += size
        return data
