"""Compute layouts of weights that are looked up: bit planes as indices of 16-entry tables.

Tiles, groups and scales lie as in `packing.TileLayout`: for every tile of 64 rows and every scale
group, the group's codes, then 64 scales, then 64 zeros if the format has them. Codes are in chunks
of 32 columns; a chunk has 256 bytes for every bit plane, and a half byte is the index of four
columns of one row in one plane. In a plane's four vectors of 64 bytes

- "lut1": byte b of vector v belongs to one row, its low half to columns `8 v ..`, its high half to
  `8 v + 4 ..`. Within 32 bytes, even bytes are rows 0 .. 15 and odd ones rows 16 .. 31, so that
  16-bit lanes split into bytes are sub-tiles of 16 rows.
- "lut4": vector v is sub-tile v. Lane r of 32 bits is a row; byte j of it holds columns `4 j ..`
  (low) and `16 + 4 j ..` (high).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu import packing
from nybble.backends.cpu.float_bytes import Bytes, Floats
from nybble.backends.cpu.tile_layout import TILE, LayoutError, TileLayout
from nybble.dialects.lowbit.formats.weight import Weight
from nybble.dialects.numpy_ref.lookup import WIDTH, plane_indices

MOST_BITS = 4
CHUNK = 32
"""Columns whose bytes lie together."""
TABLES = CHUNK // WIDTH
PLANE_BYTES = TILE * TABLES // 2
Order = Literal["lut1", "lut4"]


@dataclass(frozen=True)
class LutLayout(TileLayout):
    """Indices in tiles of 64 rows; see the module's text.

    Raises LayoutError for codes of more than four bits, and for groups that are no whole chunks.
    """

    order: Order = "lut1"

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= MOST_BITS:
            raise LayoutError(
                f"codes of {self.bits} bits are too wide to be looked up",
                accepted=f"1 .. {MOST_BITS}",
            )
        if self.group % CHUNK:
            raise LayoutError(
                f"groups of {self.group} columns are not looked up",
                accepted=f"a multiple of {CHUNK}",
            )
        super().__post_init__()

    @property
    def chunks(self) -> int:
        """Chunks of a group."""
        return self.group // CHUNK

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk of a tile."""
        return self.bits * PLANE_BYTES

    @property
    def code_bytes(self) -> int:
        """Bytes of a group's codes in a tile; the scales follow."""
        return self.chunks * self.chunk_bytes

    @property
    def tiled(self) -> TileLayout:
        """The layout of the same weight for products that do not look up."""
        return TileLayout(self.rows, self.cols, self.bits, self.group, self.has_zero, self.scale)


def pack(weight: Weight, layout: LutLayout) -> Bytes:
    """The bytes of a weight: u8 [layout.size]; LayoutError where it is not what is described."""
    tiled = layout.tiled
    scales = packing.pack(weight, tiled).reshape(tiled.tiles, tiled.groups, tiled.block_bytes)
    out = np.empty((layout.tiles, layout.groups, layout.block_bytes), np.uint8)
    out[:, :, layout.code_bytes :] = scales[:, :, tiled.code_bytes :]
    codes = weight.require_codes()
    for tile in range(layout.tiles):
        rows = codes[tile * TILE : (tile + 1) * TILE]
        padded = np.pad(rows, ((0, TILE - len(rows)), (0, 0)))
        out[tile, :, : layout.code_bytes] = _code_bytes(padded, layout)
    return out.reshape(-1)


def unpack(data: Bytes, layout: LutLayout) -> tuple[Bytes, Floats, Floats | None]:
    """Inverse of `pack`: codes u8 [rows, cols], scales f32 [rows, groups], zeros alike or None."""
    blocks = data.reshape(layout.tiles, layout.groups, layout.block_bytes)
    tiled = layout.tiled
    only = np.zeros((tiled.tiles, tiled.groups, tiled.block_bytes), np.uint8)
    only[:, :, tiled.code_bytes :] = blocks[:, :, layout.code_bytes :]
    _, scale, zero = packing.unpack(only.reshape(-1), tiled)
    codes = [_codes(tile[:, : layout.code_bytes], layout) for tile in blocks]
    return np.concatenate(codes)[: layout.rows], scale, zero


def byte_rows() -> npt.NDArray[np.intp]:
    """The row of each byte of a vector in order "lut1"."""
    halves = np.arange(TILE).reshape(2, 2, TILE // 4)
    return halves.transpose(0, 2, 1).reshape(-1).astype(np.intp)


def _code_bytes(rows: Bytes, layout: LutLayout) -> Bytes:
    """u8 [64, cols] -> u8 [groups, code_bytes]."""
    planes = [plane_indices(rows, plane).astype(np.uint8) for plane in range(layout.bits)]
    # [row, chunk, table, plane]
    indices = np.stack(planes, axis=-1).reshape(TILE, -1, TABLES, layout.bits)
    if layout.order == "lut1":
        halves = indices[byte_rows()].reshape(TILE, -1, TABLES // 2, 2, layout.bits)
        ordered = halves.transpose(1, 4, 2, 0, 3)
    else:
        halves = indices.reshape(TILE, -1, 2, TABLES // 2, layout.bits)
        ordered = halves.transpose(1, 4, 0, 3, 2)
    merged = (ordered[..., 0] | (ordered[..., 1] << 4)).astype(np.uint8)
    return np.ascontiguousarray(merged).reshape(layout.groups, layout.code_bytes)


def _codes(blocks: Bytes, layout: LutLayout) -> Bytes:
    """Inverse of `_code_bytes`."""
    if layout.order == "lut1":
        merged = blocks.reshape(-1, layout.bits, TABLES // 2, TILE)
        halves = np.stack([merged & 15, merged >> 4], axis=-1).transpose(3, 0, 2, 4, 1)
        rows = np.empty_like(halves)
        rows[byte_rows()] = halves
    else:
        merged = blocks.reshape(-1, layout.bits, TILE, TABLES // 2)
        rows = np.stack([merged & 15, merged >> 4], axis=-1).transpose(2, 0, 4, 3, 1)
    indices = rows.reshape(TILE, -1, layout.bits)
    codes = np.zeros((TILE, indices.shape[1], WIDTH), np.uint8)
    for plane in range(layout.bits):
        bits = indices[:, :, plane, None] >> np.arange(WIDTH, dtype=np.uint8) & 1
        codes |= bits << plane
    return codes.reshape(TILE, layout.cols)
