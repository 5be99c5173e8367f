"""Where the bits of small integers lie in a block of bytes, as data read in both directions."""

from dataclasses import dataclass

import numpy as np

from nybble.dialects.lowbit.formats.arrays import U8


@dataclass(frozen=True)
class Plane:
    """Some bits of some of the integers.

    The bytes of `field` are taken in runs of `span` bytes; a run gives one integer part per shift
    and byte, all bytes for the first shift first: `(byte >> shift) & mask`, to be put at bit
    `place` of the integers from number `start` on.
    """

    field: str
    span: int
    shifts: tuple[int, ...]
    mask: int
    place: int = 0
    start: int = 0


@dataclass(frozen=True)
class BitField:
    """`count` integers per block made of planes; `flip` is XORed on reading (two's complement)."""

    count: int
    planes: tuple[Plane, ...]
    flip: int = 0

    @property
    def width(self) -> int:
        """Bits of one integer."""
        return max(plane.place + plane.mask.bit_length() for plane in self.planes)

    def read(self, fields: dict[str, U8]) -> U8:
        """fields: name -> u8 [blocks, bytes]. Returns u8 [blocks, count]."""
        blocks = next(iter(fields.values())).shape[0]
        result = np.zeros((blocks, self.count), np.uint8)
        for plane in self.planes:
            source = fields[plane.field]
            runs = source.reshape(blocks, source.shape[1] // plane.span, 1, plane.span)
            shifts = np.array(plane.shifts, np.uint8)[:, None]
            parts = (runs >> shifts) & np.uint8(plane.mask)
            total = min(source.shape[1] * len(plane.shifts), self.count - plane.start)
            part = parts.reshape(blocks, source.shape[1] * len(plane.shifts))[:, :total]
            result[:, plane.start : plane.start + total] |= part << np.uint8(plane.place)
        result ^= np.uint8(self.flip)
        return result

    def write(self, integers: U8, fields: dict[str, U8]) -> None:
        """OR u8 [blocks, count] into the fields, which start as zero: the inverse of `read`."""
        integers = integers ^ np.uint8(self.flip)
        blocks = integers.shape[0]
        for plane in self.planes:
            target = fields[plane.field]
            capacity = target.shape[1] * len(plane.shifts)
            total = min(capacity, self.count - plane.start)
            parts = np.zeros((blocks, capacity), np.uint8)
            taken = integers[:, plane.start : plane.start + total]
            parts[:, :total] = (taken >> np.uint8(plane.place)) & np.uint8(plane.mask)
            runs = parts.reshape(
                blocks, target.shape[1] // plane.span, len(plane.shifts), plane.span
            )
            shifts = np.array(plane.shifts, np.uint8)[:, None]
            merged = np.bitwise_or.reduce(runs << shifts, axis=2)
            target |= merged.reshape(target.shape)


def dense(field: str, count: int, width: int) -> tuple[BitField, dict[str, int]]:
    """`count` integers of `width` bits, split into power-of-two planes, first integer lowest.

    Returns the bit field and the bytes of each field it needs (`field` + "_" + place).
    """
    planes: list[Plane] = []
    sizes: dict[str, int] = {}
    place = 0
    for piece in (8, 4, 2, 1):
        if width & piece:
            name = f"{field}_{place}"
            shifts = tuple(range(0, 8, piece))
            planes.append(Plane(name, 1, shifts, 2**piece - 1, place))
            sizes[name] = -(-count * piece // 8)
            place += piece
    return BitField(count, tuple(planes)), sizes
