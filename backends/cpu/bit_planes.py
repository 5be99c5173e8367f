"""The compute layout of weights for popcounts: planes of single bits.

For every tile of 64 rows and every scale group, in one sequential stream: for every 32 columns of
the group and every bit plane of the codes, one 32-bit word for each of the 64 rows, whose bit k is
the plane's bit of column k; then the 64 scales, then (if the format has them) 64 zeros. So a lane is
a row, and a vector of any width that divides 64 words takes whole rows.

Rows are padded to a multiple of 64, and the columns of a group to a multiple of 32, with zeros.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.packing import (
    FLOAT_BYTES,
    TILE,
    Bytes,
    FloatName,
    Floats,
    LayoutError,
    from_floats,
    to_floats,
)
from nybble.dialects.lowbit.formats.weight import Weight

WORD = 32
"""Columns of a word."""
Words = npt.NDArray[np.uint32]


def words_of(columns: int) -> int:
    """Words that hold the bits of so many columns."""
    return -(-columns // WORD)


@dataclass(frozen=True)
class PlaneLayout:
    """Codes of `bits` planes in tiles of 64 rows; see the module's text.

    group: columns per scale. has_zero: whether zeros follow the scales. scale: float type of both.
    Raises LayoutError where `cols` is not a multiple of the group.
    """

    rows: int
    cols: int
    bits: int
    group: int
    has_zero: bool = False
    scale: FloatName = "f16"

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise LayoutError(f"codes of {self.bits} bits do not fit a byte", accepted="1 .. 8")
        if self.rows < 1 or self.cols < 1 or self.group < 1 or self.cols % self.group:
            raise LayoutError(
                f"a weight of {self.rows} x {self.cols} has no whole groups of {self.group}",
                accepted=f"columns that are a multiple of {self.group}",
            )

    @property
    def tiles(self) -> int:
        """Tiles of 64 rows."""
        return -(-self.rows // TILE)

    @property
    def groups(self) -> int:
        """Groups in a row."""
        return self.cols // self.group

    @property
    def words(self) -> int:
        """Words that a plane of a group takes in a row."""
        return words_of(self.group)

    @property
    def code_bytes(self) -> int:
        """Bytes of a group's codes in a tile; the scales follow."""
        return self.words * self.bits * TILE * 4

    @property
    def scale_bytes(self) -> int:
        """Bytes of a group's 64 scales; the zeros follow."""
        return TILE * FLOAT_BYTES[self.scale]

    @property
    def block_bytes(self) -> int:
        """Bytes of a group in a tile."""
        return self.code_bytes + (2 if self.has_zero else 1) * self.scale_bytes

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile."""
        return self.groups * self.block_bytes

    @property
    def size(self) -> int:
        """Bytes of the weight."""
        return self.tiles * self.tile_bytes


def pack_planes(weight: Weight, layout: PlaneLayout) -> Bytes:
    """The bytes of a weight in planes: u8 [layout.size]; LayoutError if it is not as described."""
    codes = weight.require_codes()
    if codes.shape != (layout.rows, layout.cols):
        raise LayoutError(f"codes {codes.shape} do not fit {layout}")
    if (weight.zero is not None) != layout.has_zero:
        raise LayoutError(f"the weight {'lacks' if layout.has_zero else 'has'} zeros: {layout}")
    if int(codes.max(initial=0)) >> layout.bits:
        raise LayoutError(f"a code of {int(codes.max())} has more than {layout.bits} bits")
    out = np.empty((layout.tiles, layout.groups, layout.block_bytes), np.uint8)
    for tile in range(layout.tiles):
        rows = slice(tile * TILE, (tile + 1) * TILE)
        block = out[tile]
        block[:, : layout.code_bytes] = _code_bytes(_padded(codes[rows]), layout)
        scales = [weight.scale] if weight.zero is None else [weight.scale, weight.zero]
        at = layout.code_bytes
        for one in scales:
            lanes = np.ascontiguousarray(_padded(one[rows]).T)
            block[:, at : at + layout.scale_bytes] = to_floats(lanes, layout.scale)
            at += layout.scale_bytes
    return out.reshape(-1)


def unpack_planes(data: Bytes, layout: PlaneLayout) -> tuple[Bytes, Floats, Floats | None]:
    """Inverse of `pack_planes`: codes u8 [rows, cols], scales f32 [rows, groups], zeros or None."""
    blocks = data.reshape(layout.tiles, layout.groups, layout.block_bytes)
    words = np.ascontiguousarray(blocks[:, :, : layout.code_bytes]).view(np.uint32)
    planes = words.reshape(layout.tiles, layout.groups, layout.words, layout.bits, TILE)
    by_row = planes.transpose(0, 4, 1, 2, 3).reshape(layout.tiles * TILE, layout.groups, -1)
    codes = codes_of_words(by_row[: layout.rows], layout.bits, layout.group)
    ends = [layout.code_bytes + i * layout.scale_bytes for i in range(3)]
    scale, zero = (
        _lanes(blocks[:, :, first:last], layout) if last <= layout.block_bytes else None
        for first, last in zip(ends, ends[1:], strict=False)
    )
    assert scale is not None
    return codes.reshape(layout.rows, layout.cols), scale, zero


def words_of_codes(codes: Bytes, bits: int, group: int) -> Words:
    """Codes u8 [rows, cols] as words u32 [rows, groups, words * bits], planes innermost."""
    rows, cols = codes.shape
    groups = codes.reshape(rows, cols // group, group)
    padded = np.pad(groups, ((0, 0), (0, 0), (0, -group % WORD)))
    shape = (rows, cols // group, words_of(group), 1, WORD)
    planes = padded.reshape(shape) >> np.arange(bits, dtype=np.uint8)[:, None] & 1
    packed = np.packbits(planes, axis=-1, bitorder="little").view("<u4")
    return packed.reshape(rows, cols // group, words_of(group) * bits)


def codes_of_words(words: Words, bits: int, group: int) -> Bytes:
    """Inverse of `words_of_codes`: u8 [rows, groups, group]."""
    rows, groups, _ = words.shape
    octets = np.ascontiguousarray(words).view(np.uint8).reshape(rows, groups, -1, bits, 4)
    planes = np.unpackbits(octets, axis=-1, bitorder="little")
    shifted = planes << np.arange(bits, dtype=np.uint8)[:, None]
    codes = np.bitwise_or.reduce(shifted, axis=-2)
    return codes.reshape(rows, groups, -1)[:, :, :group]


def _padded(rows: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.uint8 | np.float32]:
    return np.pad(rows, ((0, TILE - len(rows)), (0, 0)))


def _code_bytes(codes: npt.NDArray[np.uint8 | np.float32], layout: PlaneLayout) -> Bytes:
    """u8 [64, cols] -> u8 [groups, code_bytes]."""
    words = words_of_codes(codes.astype(np.uint8, copy=False), layout.bits, layout.group)
    ordered = np.ascontiguousarray(words.transpose(1, 2, 0))
    return ordered.view(np.uint8).reshape(layout.groups, layout.code_bytes)


def _lanes(blocks: Bytes, layout: PlaneLayout) -> Floats:
    """u8 [tiles, groups, 64 floats] -> f32 [rows, groups]."""
    floats = from_floats(np.ascontiguousarray(blocks), layout.scale)
    by_row = floats.reshape(layout.tiles, layout.groups, TILE).transpose(0, 2, 1)
    return np.ascontiguousarray(by_row.reshape(-1, layout.groups)[: layout.rows])
