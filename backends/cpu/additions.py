"""What a packed weight carries behind its tiles: outliers and low-rank factors, added to products.

In order, each from a multiple of 64 bytes on: for every row (padded to whole tiles of 64) where its
outliers start, i32 [rows + 1]; their columns i32 and values f32, by row; the left factor f32
[tile][rank][64 rows]; the right factor f32 [rank][cols].
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nybble.backends.cpu.float_bytes import Bytes, Floats
from nybble.backends.cpu.tile_layout import TILE, LayoutError
from nybble.dialects.lowbit.formats.weight import Weight

ALIGNMENT = 64


@dataclass(frozen=True)
class AddedLayout:
    """Room for what is added to a weight [rows, cols]: `outliers` of them, a product of `rank`."""

    rows: int
    cols: int
    outliers: int
    rank: int

    @property
    def tiles(self) -> int:
        """Tiles of 64 rows."""
        return -(-self.rows // TILE)

    @cached_property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Elements of four bytes of each array, in order."""
        starts = self.tiles * TILE + 1 if self.outliers else 0
        left = self.tiles * self.rank * TILE
        return starts, self.outliers, self.outliers, left, self.rank * self.cols

    @cached_property
    def places(self) -> tuple[int, ...]:
        """Byte where each array starts, and the end."""
        places = [0]
        for size in self.sizes:
            places.append(places[-1] + -(-4 * size // ALIGNMENT) * ALIGNMENT)
        return tuple(places)

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return self.places[-1]


@dataclass(frozen=True)
class Added:
    """What is added to the weights of a format: at most so many outliers of 1000, a low rank.

    least: outliers that even a small matrix has room for.
    """

    permille: int = 0
    rank: int = 0
    least: int = 0

    def __bool__(self) -> bool:
        return self.permille > 0 or self.rank > 0

    def layout(self, rows: int, cols: int) -> AddedLayout:
        """Room for it beside a weight [rows, cols]."""
        outliers = max(rows * cols * self.permille // 1000, self.least)
        return AddedLayout(rows, cols, outliers, self.rank)


NOTHING = Added()


def pack_added(weight: Weight, layout: AddedLayout) -> Bytes:
    """The outliers and factors of a weight: u8 [layout.size].

    Raises LayoutError where there are more of them than the layout has room for.
    """
    out = np.zeros(layout.size, np.uint8)
    starts, columns, values, left, right = (
        out[place : place + 4 * size]
        for place, size in zip(layout.places, layout.sizes, strict=False)
    )
    if weight.outliers is not None:
        found = weight.outliers
        if len(found.rows) > layout.outliers:
            raise LayoutError(
                f"{len(found.rows)} outliers in a weight of {layout.rows} x {layout.cols}",
                accepted=f"at most {layout.outliers}",
            )
        order = np.lexsort((found.cols, found.rows))
        counts = np.bincount(found.rows, minlength=layout.tiles * TILE)
        if layout.outliers:
            starts.view(np.int32)[1:] = np.cumsum(counts)
        columns.view(np.int32)[: len(order)] = found.cols[order]
        values.view(np.float32)[: len(order)] = found.values[order]
    if weight.low_rank is not None:
        _pack_factors(weight.low_rank, layout, left, right)
    return out


def _pack_factors(
    factors: tuple[Floats, Floats], layout: AddedLayout, left: Bytes, right: Bytes
) -> None:
    tall, wide = factors
    rank = tall.shape[1]
    if rank > layout.rank:
        raise LayoutError(f"factors of rank {rank}", accepted=f"at most {layout.rank}")
    padded = np.zeros((layout.tiles * TILE, layout.rank), np.float32)
    padded[: layout.rows, :rank] = tall
    tiles = padded.reshape(layout.tiles, TILE, layout.rank).transpose(0, 2, 1)
    left.view(np.float32)[:] = tiles.reshape(-1)
    right.view(np.float32).reshape(layout.rank, layout.cols)[:rank] = wide
