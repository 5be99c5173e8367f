"""Compute layout of lossless bf16: 12 bits a weight, and the few that these do not tell.

The high byte of a bf16, its sign and seven bits of its exponent, takes few values among the weights
of a layer. So each tile of 64 rows has a table of 16 high bytes; a weight is its low byte and four
bits that index the table, and a byte shuffle puts 64 of them together. Entry 0 is the byte 0. A
weight whose high byte is in no entry is held as +0 and as an outlier, an exact value that is added
(`additions`).

A tile is 64 bytes, the table four times (a register of any width finds it in its every 16 bytes),
then steps of 8 columns: two vectors of low bytes for each sub-tile, then a vector of indices for
each, the last four columns in the high halves. Bytes of a vector are `[16 rows][4 columns]`, as in
`tile_layout`.

Huffman codes of the exponents (DFloat11, arXiv 2504.11651) take one bit less, and a dependent
look-up and shift for every weight.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.float_bytes import Bytes, Floats
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TILE, VECTOR, LayoutError
from nybble.dialects.lowbit.formats.high_bytes import ENTRIES, split
from nybble.dialects.lowbit.formats.weight import Outlying

STEP = 8
"""Columns of a step."""
STEP_BYTES = STEP * TILE * 12 // 8


@dataclass(frozen=True)
class SplitLayout:
    """bf16 [rows, cols] in tiles of 64 rows; see the module's text.

    Raises LayoutError where `cols` is not a multiple of 8.
    """

    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1 or self.cols % STEP:
            raise LayoutError(
                f"a split weight of {self.rows} x {self.cols}",
                accepted=f"columns that are a multiple of {STEP}",
            )

    @property
    def tiles(self) -> int:
        """Tiles of 64 rows."""
        return -(-self.rows // TILE)

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile."""
        return VECTOR + self.cols // STEP * STEP_BYTES

    @property
    def size(self) -> int:
        """Bytes of the weight, without its outliers."""
        return self.tiles * self.tile_bytes


def pack_split(values: Floats, layout: SplitLayout) -> tuple[Bytes, Outlying]:
    """The bytes of f32 [rows, cols] that are bf16, and the weights that they do not tell."""
    if values.shape != (layout.rows, layout.cols):
        raise LayoutError(f"a weight of shape {values.shape} is not {layout.rows} x {layout.cols}")
    wide = np.ascontiguousarray(values).view(np.uint32)
    halves = (wide >> np.uint32(16)).astype(np.uint16)
    if (wide & np.uint32(0xFFFF)).any():
        raise LayoutError("a split weight of numbers with more than 16 bits", accepted="bf16")
    out = np.empty((layout.tiles, layout.tile_bytes), np.uint8)
    left = np.zeros(values.shape, bool)
    for tile in range(layout.tiles):
        rows = slice(tile * TILE, (tile + 1) * TILE)
        found = split(halves[rows])
        left[rows] = found.left
        out[tile, :VECTOR] = np.tile(found.table, VECTOR // ENTRIES)
        out[tile, VECTOR:] = _steps(found.low, found.index)
    at, columns = (place.astype(np.int32) for place in np.nonzero(left))
    return out.reshape(-1), Outlying(at, columns, values[left])


def unpack_split(data: Bytes, layout: SplitLayout) -> npt.NDArray[np.uint16]:
    """The patterns u16 [rows, cols] of the bytes of `pack_split`."""
    tiles = data.reshape(layout.tiles, layout.tile_bytes)
    steps = tiles[:, VECTOR:].reshape(layout.tiles, -1, 3, SUBTILES, LANES, 4)
    nibbles = np.stack([steps[:, :, 2] & 15, steps[:, :, 2] >> 4], axis=2)
    codes, low = (part.transpose(0, 3, 4, 1, 2, 5) for part in (nibbles, steps[:, :, :2]))
    codes, low = (part.reshape(layout.tiles, TILE, layout.cols) for part in (codes, low))
    high = np.take_along_axis(tiles[:, None, :ENTRIES], codes.astype(np.int64), axis=2)
    both = (high.astype(np.uint16) << np.uint16(8) | low).astype(np.uint16)
    return both.reshape(-1, layout.cols)[: layout.rows]


def _steps(low: Bytes, code: Bytes) -> Bytes:
    """Low bytes and indices u8 [at most 64, cols] as the steps of a tile."""
    missing = ((0, TILE - len(low)), (0, 0))
    shape = (SUBTILES, LANES, -1, 2, 4)
    lows, codes = (
        np.pad(part, missing).reshape(shape).transpose(2, 3, 0, 1, 4) for part in (low, code)
    )
    nibbles = (codes[:, :1] | codes[:, 1:] << 4).astype(np.uint8)
    return np.concatenate([lows, nibbles], axis=1).reshape(-1)
