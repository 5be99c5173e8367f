"""Codes in registers become bytes: the A operand of `mma` on 8-bit integers.

Codes of a line stay as they are, unsigned: what `step * c + first` has beyond `step * c` is made
good with sums of activations. Tables of small integers are looked up, and are signed.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from nybble.backends.building.values import Value
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.kernels.matmul.decode import Words, looked_up
from nybble.backends.gpu.packing.bytes import Octets
from nybble.backends.gpu.packing.kind import Line, Meaning, Table
from nybble.backends.gpu.packing.placement import Placement


class ByteDecoder(ABC):
    """T(c) is `factor * (byte + offset)`. kind: whether bytes are "u8" or "s8"."""

    kind: ClassVar[str]
    factor: float = 1.0
    offset: float = 0.0

    @abstractmethod
    def rows(self, words: Words, fragment: int) -> tuple[Value, Value]:
        """A tile of 16 columns of a fragment: this lane's four of row g, and of row g + 8."""


class LineBytes(ByteDecoder):
    """step * c + first."""

    kind: ClassVar[str] = "u8"

    def __init__(self, placement: Placement, line: Line):
        self.octets = Octets(placement)
        self.factor = float(line.step)
        self.offset = line.first / line.step

    def rows(self, words: Words, fragment: int) -> tuple[Value, Value]:
        """See ByteDecoder."""
        lower, upper = (words.put_together(self.octets.takes(fragment, i), 0) for i in (0, 1))
        return lower, upper


class TableBytes(ByteDecoder):
    """One of 16 integers of 8 bits."""

    kind: ClassVar[str] = "s8"

    def __init__(self, b: GpuBuilder, table: Table):
        self.b = b
        codes = [int(value) & 0xFF for value in table.values]
        self.words = [int.from_bytes(codes[i : i + 4], "little") for i in range(0, 16, 4)]

    def rows(self, words: Words, fragment: int) -> tuple[Value, Value]:
        """See ByteDecoder: a word has the eight codes of a fragment, in order."""
        b = self.b
        low, high = (looked_up(b, words, fragment, shift, self.words) for shift in (0, 16))
        return b.permute(low, high, 0x5410), b.permute(low, high, 0x7632)


def byte_decoder(b: GpuBuilder, placement: Placement, meaning: Meaning) -> ByteDecoder:
    """The decoder of a meaning that has one, see `spec.is_integer`."""
    if isinstance(meaning, Line):
        return LineBytes(placement, meaning)
    assert isinstance(meaning, Table)
    return TableBytes(b, meaning)
