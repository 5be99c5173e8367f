"""Compute layouts of weights: what the CPU matmul kernels stream, as a permutation of codes.

`TileLayout` holds integer codes with scales. For every tile of 64 rows and every scale group, in
one sequential stream: the group's codes, then 64 scales, then (if the format has them) 64 zeros and
64 bytes that choose a special value.

A code is cut into pieces of 4, 2 and 1 bits, the low ones first (`widths`; a code of 8 bits is one
piece), and a group into steps of the fewest columns that fill a vector of every piece. A step
holds, piece by piece, vectors of 64 bytes, one for each of the tile's four sub-tiles of 16 rows in
turn. Byte `row * 4 + j` of vector v holds, in plane p (bits `p * width ..`), the piece of the code
of column `(v * planes + p) * 4 + j` of the step. So a 32-bit lane is a row, and after a mask and a
shift the vector is what a four-way integer dot product takes, and a tile of AMX's second operand.

`DenseLayout` holds plain floats, 64 rows of a column together: `[tile][column][64]`.

Rows are padded to a multiple of 64 with zeros.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.float_bytes import (
    FLOAT_BYTES,
    Bytes,
    FloatName,
    Floats,
    from_floats,
    to_floats,
)
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit.formats.weight import Weight

TILE = 64
LANES = 16
SUBTILES = TILE // LANES
VECTOR = 64
"""Bytes of a vector of codes."""
PIECES = (4, 2, 1)
_CHUNK_BYTES = 4 << 20


class LayoutError(NybbleError):
    """A weight or a shape that a compute layout cannot hold."""


def pieces(bits: int, group: int) -> tuple[int, ...]:
    """The widths of the pieces that a code of `bits` bits is stored in; empty if there are none.

    Of all widths of at least `bits` whose pieces fill whole vectors with a group's columns, the
    narrowest.
    """
    for width in range(bits, 9):
        parts = (8,) if width == 8 else tuple(piece for piece in PIECES if width & piece)
        if group % (32 // min(parts)) == 0:
            return parts
    return ()


@dataclass(frozen=True)
class TileLayout:
    """Integer codes in tiles of 64 rows; see the module's text.

    bits: width of a code, 1 .. 8. group: columns per scale. has_zero: whether zeros follow the
    scales. scale: float type of scales and zeros. has_choice: whether a byte per group chooses a
    special value.
    Raises LayoutError where `cols` is not a multiple of the group, or the group not of 4.
    """

    rows: int
    cols: int
    bits: int
    group: int
    has_zero: bool = False
    scale: FloatName = "f16"
    has_choice: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise LayoutError(f"codes of {self.bits} bits do not fit a byte", accepted="1 .. 8")
        if self.group < 4 or not self.widths:
            raise LayoutError(
                f"groups of {self.group} columns do not fill vectors of {self.bits}-bit codes",
                accepted="a multiple of 4",
            )
        if self.rows < 1 or self.cols < 1 or self.cols % self.group:
            raise LayoutError(
                f"a weight of {self.rows} x {self.cols} has no whole groups of {self.group}",
                accepted=f"columns that are a multiple of {self.group}",
            )

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Bits of each piece of a code, the low ones first."""
        return pieces(self.bits, self.group)

    @property
    def width(self) -> int:
        """Bits that a code takes."""
        return sum(self.widths)

    @property
    def step(self) -> int:
        """Columns of a step."""
        return 32 // min(self.widths)

    @property
    def step_bytes(self) -> int:
        """Bytes of a step in a tile."""
        return self.step * self.width * TILE // 8

    def piece(self, index: int) -> int:
        """Byte where a piece's vectors start in a step."""
        return self.step * sum(self.widths[:index]) * TILE // 8

    def shift(self, index: int) -> int:
        """The lowest bit of a code that is in a piece."""
        return sum(self.widths[:index])

    @property
    def tiles(self) -> int:
        """Tiles of 64 rows."""
        return -(-self.rows // TILE)

    @property
    def groups(self) -> int:
        """Groups in a row."""
        return self.cols // self.group

    @property
    def steps(self) -> int:
        """Steps in a group."""
        return self.group // self.step

    @property
    def code_bytes(self) -> int:
        """Bytes of a group's codes in a tile; the scales follow."""
        return self.steps * self.step_bytes

    @property
    def scale_bytes(self) -> int:
        """Bytes of a group's scales in a tile, and of its zeros."""
        return TILE * FLOAT_BYTES[self.scale]

    @property
    def choice(self) -> int:
        """Byte of a block where the choices start."""
        return self.code_bytes + (2 if self.has_zero else 1) * self.scale_bytes

    @property
    def block_bytes(self) -> int:
        """Bytes of a group in a tile."""
        return self.choice + (TILE if self.has_choice else 0)

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

    Raises LayoutError where the weight is not what the layout describes, or a scale or zero is not
    a number of the layout's type.
    """
    codes = weight.require_codes()
    _check(codes, weight, layout)
    out = np.empty((layout.tiles, layout.groups, layout.block_bytes), np.uint8)
    zeros = layout.code_bytes + layout.scale_bytes
    for tiles, rows in _chunks(layout):
        block = out[tiles]
        block[:, :, : layout.code_bytes] = _code_bytes(_padded(codes[rows]), layout)
        block[:, :, layout.code_bytes : zeros] = _scale_bytes(weight.scale[rows], layout)
        if weight.zero is not None:
            block[:, :, zeros : layout.choice] = _scale_bytes(weight.zero[rows], layout)
        if weight.selector is not None:
            block[:, :, layout.choice :] = _by_tile(weight.selector[rows], layout)
    return out.reshape(-1)


def unpack(data: Bytes, layout: TileLayout) -> tuple[Bytes, Floats, Floats | None]:
    """Inverse of `pack`: codes u8 [rows, cols], scales f32 [rows, groups], zeros alike or None."""
    blocks = data.reshape(layout.tiles, layout.groups, layout.block_bytes)
    codes = _codes_from_bytes(blocks[:, :, : layout.code_bytes], layout)
    start = layout.code_bytes
    scale = _scales_from_bytes(blocks[:, :, start : start + layout.scale_bytes], layout)
    if not layout.has_zero:
        return codes, scale, None
    zeros = blocks[:, :, start + layout.scale_bytes : layout.choice]
    return codes, scale, _scales_from_bytes(zeros, layout)


def pack_dense(values: Floats, layout: DenseLayout) -> Bytes:
    """The bytes of f32 [rows, cols] in a dense layout, rounded to nearest even to its type."""
    if values.shape != (layout.rows, layout.cols):
        raise LayoutError(f"a weight of shape {values.shape} is not {layout.rows} x {layout.cols}")
    out = np.empty((layout.tiles, layout.tile_bytes), np.uint8)
    for tile in range(layout.tiles):
        rows = _padded(values[tile * TILE : (tile + 1) * TILE])
        out[tile] = to_floats(np.ascontiguousarray(rows.T, np.float32), layout.dtype).reshape(-1)
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
    if (weight.selector is not None) != layout.has_choice:
        raise LayoutError(f"the weight {'lacks' if layout.has_choice else 'has'} choices: {layout}")
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
    words = words.reshape(-1, SUBTILES, LANES, layout.groups, layout.steps, layout.step // 4)
    parts = [_piece_bytes(words, layout, index) for index in range(len(layout.widths))]
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    return joined.reshape(len(joined), layout.groups, layout.code_bytes)


def _piece_bytes(words: npt.NDArray[np.uint32], layout: TileLayout, index: int) -> Bytes:
    """Codes u32 [t, 4, 16, groups, steps, step / 4] -> u8 [t, groups, steps, bytes of a piece]."""
    width, shift = layout.widths[index], layout.shift(index)
    planes = words.reshape(*words.shape[:-1], layout.step * width // 32, 8 // width)
    merged = np.zeros(planes.shape[:-1], np.uint32)
    for plane in range(8 // width):
        piece = (planes[..., plane] >> np.uint32(shift)) & _mask(width)
        merged |= piece << np.uint32(plane * width)
    ordered = np.ascontiguousarray(merged.transpose(0, 3, 4, 5, 1, 2)).view(np.uint8)
    return ordered.reshape(*ordered.shape[:3], -1)


def _mask(width: int) -> np.uint32:
    """The low `width` bits of each byte."""
    return np.uint32(0x01010101 * (2**width - 1))


def _codes_from_bytes(blocks: Bytes, layout: TileLayout) -> Bytes:
    steps = blocks.reshape(layout.tiles, layout.groups, layout.steps, layout.step_bytes)
    shape = (layout.tiles, SUBTILES, LANES, layout.groups, layout.steps, layout.step // 4)
    words = np.zeros(shape, np.uint32)
    for index, width in enumerate(layout.widths):
        first = layout.piece(index)
        piece = np.ascontiguousarray(steps[..., first : first + layout.step * width * TILE // 8])
        merged = piece.view(np.uint32).reshape(*steps.shape[:3], -1, SUBTILES, LANES)
        merged = merged.transpose(0, 4, 5, 1, 2, 3)
        planes = [(merged >> np.uint32(p * width)) & _mask(width) for p in range(8 // width)]
        words |= np.stack(planes, axis=-1).reshape(shape) << np.uint32(layout.shift(index))
    return words.view(np.uint8).reshape(layout.tiles * TILE, layout.cols)[: layout.rows]


def _by_tile(
    values: npt.NDArray[np.uint8 | np.float32], layout: TileLayout
) -> npt.NDArray[np.uint8 | np.float32]:
    """[rows, groups] -> [t, groups, 64]."""
    tiles = _padded(values).reshape(-1, TILE, layout.groups).transpose(0, 2, 1)
    return np.ascontiguousarray(tiles)


def _scale_bytes(scales: Floats, layout: TileLayout) -> Bytes:
    """f32 [rows, groups] -> u8 [t, groups, 64 floats]."""
    tiles = _by_tile(scales, layout).astype(np.float32)
    data = to_floats(tiles, layout.scale)
    kept = from_floats(data, layout.scale).reshape(tiles.shape)
    if not np.array_equal(kept, tiles, equal_nan=True):
        wrong = float(tiles[(kept != tiles) & ~np.isnan(tiles)][0])
        raise LayoutError(f"a scale or zero of {wrong!r} in a layout of {layout.scale}")
    return data


def _scales_from_bytes(blocks: Bytes, layout: TileLayout) -> Floats:
    floats = from_floats(np.ascontiguousarray(blocks), layout.scale)
    rows = floats.reshape(layout.tiles, layout.groups, TILE).transpose(0, 2, 1)
    return np.ascontiguousarray(rows.reshape(-1, layout.groups)[: layout.rows])
