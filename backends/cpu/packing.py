"""Compute layouts of weights: what the CPU matmul kernels stream, as a permutation of codes.

`TileLayout` holds integer codes with scales. For every tile of 64 rows and every scale group, in
one sequential stream: the group's codes, then 64 scales, then (if the format has them) 64 zeros.
Codes come in vectors of 64 bytes, one for each of the tile's four sub-tiles of 16 rows in turn.
Byte `row * 4 + j` of vector v holds, in plane p (bits `p * bits ..`), the code of column
`(v * planes + p) * 4 + j` of the group. So a 32-bit lane is a row, and after a mask and a shift the
vector is what a four-way integer dot product takes, and a tile of AMX's second operand.

`DenseLayout` holds plain floats, 64 rows of a column together: `[tile][column][64]`.

Rows are padded to a multiple of 64 with zeros.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit.formats.weight import Weight

TILE = 64
LANES = 16
WIDTHS = (1, 2, 4, 8)
FloatName = Literal["f32", "f16", "bf16"]
FLOAT_BYTES: dict[FloatName, int] = {"f32": 4, "f16": 2, "bf16": 2}
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
_CHUNK_BYTES = 4 << 20


class LayoutError(NybbleError):
    """A weight or a shape that a compute layout cannot hold."""


@dataclass(frozen=True)
class TileLayout:
    """Integer codes in tiles of 64 rows; see the module's text.

    bits: width of a code, 1 .. 8 (stored in the next of 1, 2, 4, 8). group: columns per scale.
    has_zero: whether zeros follow the scales. scale: float type of scales and zeros.
    Raises LayoutError where `cols` is not a multiple of the group, or the group does not fill
    vectors.
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
        step = 4 * self.planes
        if self.group < step or self.group % step:
            raise LayoutError(
                f"groups of {self.group} columns do not fill vectors of {self.bits}-bit codes",
                accepted=f"a multiple of {step}",
            )
        if self.rows < 1 or self.cols < 1 or self.cols % self.group:
            raise LayoutError(
                f"a weight of {self.rows} x {self.cols} has no whole groups of {self.group}",
                accepted=f"columns that are a multiple of {self.group}",
            )

    @property
    def width(self) -> int:
        """Bits that a code takes."""
        return next(w for w in WIDTHS if w >= self.bits)

    @property
    def planes(self) -> int:
        """Codes in a byte."""
        return 8 // self.width

    @property
    def tiles(self) -> int:
        """Tiles of 64 rows."""
        return -(-self.rows // TILE)

    @property
    def groups(self) -> int:
        """Groups in a row."""
        return self.cols // self.group

    @property
    def vectors(self) -> int:
        """Vectors of 64 bytes per group and sub-tile."""
        return self.group // (4 * self.planes)

    @property
    def code_bytes(self) -> int:
        """Bytes of a group's codes in a tile; the scales follow."""
        return self.vectors * 4 * 64

    @property
    def block_bytes(self) -> int:
        """Bytes of a group in a tile."""
        return self.code_bytes + (2 if self.has_zero else 1) * TILE * FLOAT_BYTES[self.scale]

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile."""
        return self.groups * self.block_bytes

    @property
    def size(self) -> int:
        """Bytes of the weight."""
        return self.tiles * self.tile_bytes


@dataclass(frozen=True)
class DenseLayout:
    """Plain floats in tiles of 64 rows; see the module's text."""

    rows: int
    cols: int
    dtype: FloatName

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise LayoutError(f"a weight of {self.rows} x {self.cols} is empty")

    @property
    def tiles(self) -> int:
        """Tiles of 64 rows."""
        return -(-self.rows // TILE)

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile."""
        return self.cols * TILE * FLOAT_BYTES[self.dtype]

    @property
    def size(self) -> int:
        """Bytes of the weight."""
        return self.tiles * self.tile_bytes


def pack(weight: Weight, layout: TileLayout) -> Bytes:
    """The bytes of a weight in a tile layout: u8 [layout.size].

    Raises LayoutError where the weight is not what the layout describes.
    """
    codes = weight.require_codes()
    zero = weight.zero if weight.zero is not None else None
    _check(codes, weight, layout)
    out = np.empty((layout.tiles, layout.groups, layout.block_bytes), np.uint8)
    for tiles, rows in _chunks(layout):
        block = out[tiles]
        block[:, :, : layout.code_bytes] = _code_bytes(_padded(codes[rows]), layout)
        scales = block[:, :, layout.code_bytes :]
        span = TILE * FLOAT_BYTES[layout.scale]
        scales[:, :, :span] = _scale_bytes(weight.scale[rows], layout)
        if zero is not None:
            scales[:, :, span:] = _scale_bytes(zero[rows], layout)
    return out.reshape(-1)


def unpack(data: Bytes, layout: TileLayout) -> tuple[Bytes, Floats, Floats | None]:
    """Inverse of `pack`: codes u8 [rows, cols], scales f32 [rows, groups], zeros alike or None."""
    blocks = data.reshape(layout.tiles, layout.groups, layout.block_bytes)
    codes = _codes_from_bytes(blocks[:, :, : layout.code_bytes], layout)
    span = TILE * FLOAT_BYTES[layout.scale]
    start = layout.code_bytes
    scale = _scales_from_bytes(blocks[:, :, start : start + span], layout)
    if not layout.has_zero:
        return codes, scale, None
    return codes, scale, _scales_from_bytes(blocks[:, :, start + span :], layout)


def pack_dense(values: Floats, layout: DenseLayout) -> Bytes:
    """The bytes of f32 [rows, cols] in a dense layout, rounded to nearest even to its type."""
    if values.shape != (layout.rows, layout.cols):
        raise LayoutError(f"a weight of shape {values.shape} is not {layout.rows} x {layout.cols}")
    out = np.empty((layout.tiles, layout.tile_bytes), np.uint8)
    for tile in range(layout.tiles):
        rows = _padded(values[tile * TILE : (tile + 1) * TILE])
        out[tile] = to_floats(np.ascontiguousarray(rows.T), layout.dtype).reshape(-1)
    return out.reshape(-1)


def unpack_dense(data: Bytes, layout: DenseLayout) -> Floats:
    """Inverse of `pack_dense`: f32 [rows, cols]."""
    tiles = from_floats(data, layout.dtype).reshape(layout.tiles, layout.cols, TILE)
    rows = tiles.transpose(0, 2, 1).reshape(layout.tiles * TILE, layout.cols)
    return np.ascontiguousarray(rows[: layout.rows])


def _check(codes: Bytes, weight: Weight, layout: TileLayout) -> None:
    shape = (layout.rows, layout.groups)
    if codes.shape != (layout.rows, layout.cols) or weight.scale.shape != shape:
        raise LayoutError(
            f"codes {codes.shape} with scales {weight.scale.shape} do not fit {layout}"
        )
    if (weight.zero is not None) != layout.has_zero:
        raise LayoutError(f"the weight {'lacks' if layout.has_zero else 'has'} zeros: {layout}")
    if int(codes.max(initial=0)) >> layout.width:
        raise LayoutError(f"a code of {int(codes.max())} has more than {layout.width} bits")


def _chunks(layout: TileLayout) -> Iterator[tuple[slice, slice]]:
    """Slices of tiles and of their rows, a few megabytes at a time."""
    step = max(1, _CHUNK_BYTES // (TILE * layout.cols))
    for first in range(0, layout.tiles, step):
        last = min(first + step, layout.tiles)
        yield slice(first, last), slice(first * TILE, min(last * TILE, layout.rows))


def _padded(rows: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.uint8 | np.float32]:
    missing = -len(rows) % TILE
    return np.pad(rows, ((0, missing), (0, 0))) if missing else rows


def _code_bytes(codes: npt.NDArray[np.uint8 | np.float32], layout: TileLayout) -> Bytes:
    """u8 [64 t, cols] -> u8 [t, groups, code_bytes]."""
    words = np.ascontiguousarray(codes).view(np.uint32)
    shape = (-1, 4, LANES, layout.groups, layout.vectors, layout.planes)
    planes = words.reshape(shape)
    merged = planes[..., 0].copy() if layout.planes > 1 else planes[..., 0]
    for plane in range(1, layout.planes):
        merged |= planes[..., plane] << np.uint32(plane * layout.width)
    ordered = np.ascontiguousarray(merged.transpose(0, 3, 4, 1, 2))
    return ordered.view(np.uint8).reshape(len(ordered), layout.groups, layout.code_bytes)


def _codes_from_bytes(blocks: Bytes, layout: TileLayout) -> Bytes:
    shape = (layout.tiles, layout.groups, layout.vectors, 4, LANES)
    merged = np.ascontiguousarray(blocks).view(np.uint32).reshape(shape)
    mask = np.uint32(0x01010101 * (2**layout.width - 1))
    parts = [(merged >> np.uint32(p * layout.width)) & mask for p in range(layout.planes)]
    words = np.stack(parts, axis=-1).transpose(0, 3, 4, 1, 2, 5)
    codes = np.ascontiguousarray(words).view(np.uint8)
    return codes.reshape(layout.tiles * TILE, layout.cols)[: layout.rows]


def _scale_bytes(scales: Floats, layout: TileLayout) -> Bytes:
    """f32 [rows, groups] -> u8 [t, groups, 64 floats]."""
    tiles = _padded(scales).reshape(-1, TILE, layout.groups).transpose(0, 2, 1)
    return to_floats(np.ascontiguousarray(tiles), layout.scale)


def _scales_from_bytes(blocks: Bytes, layout: TileLayout) -> Floats:
    floats = from_floats(np.ascontiguousarray(blocks), layout.scale)
    rows = floats.reshape(layout.tiles, layout.groups, TILE).transpose(0, 2, 1)
    return np.ascontiguousarray(rows.reshape(-1, layout.groups)[: layout.rows])


def to_floats(values: npt.NDArray[np.uint8 | np.float32], dtype: FloatName) -> Bytes:
    """The bytes of f32 numbers in a float type, along the last axis."""
    if dtype == "f16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).view(np.uint8)
    if dtype == "f32":
        return values.astype(np.float32).view(np.uint8)
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    halves = np.where(np.isnan(values), (bits >> np.uint32(16)) | np.uint32(0x40), rounded)
    return halves.astype(np.uint16).view(np.uint8)


def from_floats(data: Bytes, dtype: FloatName) -> Floats:
    """Inverse of `to_floats`: f32."""
    if dtype == "f16":
        return data.view(np.float16).astype(np.float32)
    if dtype == "f32":
        return data.view(np.float32)
    return (data.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
