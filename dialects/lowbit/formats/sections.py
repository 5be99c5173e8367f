"""A byte stream of sections: what a matrix is stored as whose rows have no bytes of their own.

Little-endian u64 [3 + sections]: rows, columns, number of sections, bytes of each; then the
sections, each from a multiple of 8 bytes on, zeros between them.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.arrays import U8
from nybble.dialects.lowbit.formats.bits import dense
from nybble.dialects.lowbit.formats.errors import FormatError

_ALIGN = 8
_LARGEST = 1 << 40
Item = TypeVar("Item", bound=np.generic)


class Writer:
    """Collects sections in order."""

    def __init__(self) -> None:
        self._sections: list[U8] = []

    def put(self, array: npt.NDArray[np.generic]) -> None:
        """A section of the bytes of an array."""
        self._sections.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def small(self, integers: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], width: int) -> None:
        """Sections of integers of `width` bits each, of 1 .. 10: a plane of 8, 4, 2, 1 bits of all
        of them at a time.
        """
        flat = integers.reshape(1, -1)
        if width > 8:
            self.small((flat >> 8).astype(np.uint8), width - 8)
            width = 8
        field, sizes = dense("p", flat.shape[1], width)
        planes = {name: np.zeros((1, size), np.uint8) for name, size in sizes.items()}
        if flat.size:
            field.write((flat & 255).astype(np.uint8), planes)
        for plane in planes.values():
            self.put(plane)

    def finish(self, rows: int, cols: int) -> U8:
        """The stream u8 [n]."""
        sizes = [section.size for section in self._sections]
        head = np.array([rows, cols, len(sizes), *sizes], "<u8").view(np.uint8)
        padded = [np.pad(section, (0, -section.size % _ALIGN)) for section in self._sections]
        return np.concatenate([head, *padded])


class Reader:
    """Takes the sections of a stream in order; raises FormatError where it is not one.

    rows, cols: of the matrix.
    """

    def __init__(self, raw: U8) -> None:
        words = raw[: raw.size // 8 * 8].view("<u8")
        head = [int(word) for word in words[:3]]
        if len(head) < 3 or max(head) > _LARGEST or 8 * (3 + head[2]) > raw.size:
            raise FormatError(f"a stream of {raw.size} bytes without its header")
        self.rows, self.cols, count = head
        self._sizes = [int(size) for size in words[3 : 3 + count]]
        self._start = 8 * (3 + count)
        self._raw = raw
        total = self._start + sum(-(-size // _ALIGN) * _ALIGN for size in self._sizes)
        if total != raw.size:
            raise FormatError(f"a stream of {raw.size} bytes", accepted=f"{total} by its header")

    def take(self, kind: type[Item], count: int | None = None) -> npt.NDArray[Item]:
        """The next section as a copy [count] of `kind`; any whole number of items if None."""
        dtype = np.dtype(kind).newbyteorder("<")
        if not self._sizes:
            raise FormatError("a stream with too few sections")
        size = self._sizes.pop(0)
        width = dtype.itemsize
        if size % width or (count is not None and size != count * width):
            wanted = f"a multiple of {width}" if count is None else f"{count * width}"
            raise FormatError(f"a section of {size} bytes", accepted=wanted)
        section = self._raw[self._start : self._start + size].copy().view(dtype)
        self._start += -(-size // _ALIGN) * _ALIGN
        return section

    def small(self, count: int, width: int) -> npt.NDArray[np.uint16]:
        """`count` integers of `width` bits: the inverse of `Writer.small`."""
        high = self.small(count, width - 8) if width > 8 else np.uint16(0)
        field, sizes = dense("p", count, min(width, 8))
        # A count that is not true must fail here, before memory of its size is asked for.
        planes = {name: self.take(np.uint8, size).reshape(1, -1) for name, size in sizes.items()}
        low = field.read(planes).reshape(-1).astype(np.uint16) if count else np.zeros(0, np.uint16)
        return low | high << np.uint16(8)

    def finish(self) -> None:
        """Raise FormatError if sections are left."""
        if self._sizes:
            raise FormatError(f"a stream with {len(self._sizes)} sections too many")
