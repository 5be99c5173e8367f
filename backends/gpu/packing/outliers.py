"""Outliers behind the records of a stream, and the ones that lossless weights leave over."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nybble.backends.gpu.packing.pack import PackingError
from nybble.backends.gpu.packing.stream import LOAD, OUTLIER, StreamLayout
from nybble.dialects.lowbit.formats.high_bytes import ENTRIES, split
from nybble.dialects.lowbit.formats.weight import Outlying

Bytes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.uint16]
NONE = Outlying(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))


def split_rows(layout: StreamLayout, halves: Halves) -> tuple[Halves, Bytes, Outlying]:
    """Codes u16 [rows, cols] of bf16 patterns, the table of each tile u8 [tiles, 16], and what the
    tables have not."""
    codes = np.zeros_like(halves)
    tables = np.zeros((layout.tiles, ENTRIES), np.uint8)
    left = np.zeros(halves.shape, np.bool_)
    for tile in range(layout.tiles):
        rows = slice(tile * layout.tile_rows, (tile + 1) * layout.tile_rows)
        found = split(halves[rows])
        codes[rows] = found.low.astype(np.uint16) << np.uint16(4) | found.index
        tables[tile], left[rows] = found.table, found.left
    rows, cols = (place.astype(np.int32) for place in np.nonzero(left))
    values = (halves[left].astype(np.uint32) << np.uint32(16)).view(np.float32)
    return codes, tables, Outlying(rows, cols, values)


def joined_halves(codes: Halves, tables: Bytes, tile_rows: int) -> Halves:
    """The patterns of codes; the inverse of `split_rows` but for what that leaves over."""
    own = np.repeat(tables, tile_rows, axis=0)[: len(codes)]
    high = np.take_along_axis(own, (codes & 15).astype(np.int64), axis=1)
    return (high.astype(np.uint16) << np.uint16(8) | codes >> np.uint16(4)).astype(np.uint16)


def with_tables(layout: StreamLayout, stream: Bytes, tables: Bytes) -> Bytes:
    """The stream with the table of each tile, u8 [tiles, 16], in all of its records."""
    records = stream[: layout.starts].reshape(layout.tiles, layout.steps, layout.record_bytes)
    records[..., layout.table_start : layout.table_start + LOAD] = tables[:, None]
    return stream


def tables_of(layout: StreamLayout, stream: Bytes) -> Bytes:
    """The table of each tile, u8 [tiles, 16]."""
    records = stream[: layout.starts].reshape(layout.tiles, layout.steps, layout.record_bytes)
    return records[:, 0, layout.table_start : layout.table_start + LOAD].copy()


def with_outliers(layout: StreamLayout, stream: Bytes, parts: Sequence[Outlying]) -> Bytes:
    """The stream with outliers; PackingError where there are more than it has room for."""
    rows, cols, values = (
        np.concatenate([getattr(part, name) for part in parts or (NONE,)])
        for name in ("rows", "cols", "values")
    )
    if len(rows) > layout.outliers:
        raise PackingError(
            f"{len(rows)} outliers in a weight of {layout.rows} x {layout.cols}",
            accepted=f"at most {layout.outliers}",
        )
    if not layout.outliers:
        return stream
    order = np.lexsort((cols, rows))
    counts = np.bincount(rows, minlength=layout.tiles * layout.tile_rows)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32)
    stream[layout.starts : layout.starts + starts.nbytes] = starts.view(np.uint8)
    pairs = np.zeros((layout.outliers, 2), np.uint32)
    pairs[: len(order), 0] = cols[order]
    pairs[: len(order), 1] = values[order].astype(np.float32).view(np.uint32)
    stream[layout.added :] = pairs.view(np.uint8).reshape(-1)
    return stream


def outliers_of(layout: StreamLayout, stream: Bytes) -> Outlying:
    """The outliers of a stream, by row and then by column."""
    if not layout.outliers:
        return NONE
    count = layout.tiles * layout.tile_rows
    starts = stream[layout.starts :][: 4 * (count + 1)].view(np.uint32).astype(np.int64)
    used = stream[layout.added :][: OUTLIER * starts[-1]].view(np.uint32).reshape(-1, 2)
    rows = np.repeat(np.arange(count, dtype=np.int32), np.diff(starts))
    cols, values = used[:, 0].astype(np.int32), np.ascontiguousarray(used[:, 1]).view(np.float32)
    return Outlying(rows, cols, values)
