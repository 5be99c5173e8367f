"""Weights into a stream of records and back, with numpy; see `stream` for the order of bytes."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nybble.backends.gpu.packing.planes import code_sums, plane_codes, plane_words
from nybble.backends.gpu.packing.stream import LANES, LOAD, TILES, PlaneLayout, StreamLayout
from nybble.dialects.errors import NybbleError

Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.unsignedinteger]
"""u8, or u16 of more than 8 bits."""
Words = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float32]


class PackingError(NybbleError):
    """A weight that a layout cannot hold exactly."""


def pack_stream(
    layout: StreamLayout, codes: Codes, scale: Floats | None, zero: Floats | None = None
) -> Bytes:
    """u8 [layout.bytes] of codes u8 [rows, cols], or u16 of more than 8 bits, and scales and zeros
    f32 [rows, groups]; tables and outliers are zeros, see `outliers`.

    Raises PackingError where a scale or zero is no number of the layout's type.
    """
    stream = np.zeros(layout.bytes, np.uint8)
    records = stream[: layout.starts].reshape(layout.tiles, layout.steps, layout.record_bytes)
    is_planes = isinstance(layout, PlaneLayout)
    words = plane_words(layout, codes.astype(np.uint8)) if is_planes else _words(layout, codes)
    records[..., : layout.code_bytes] = words.view(np.uint8).reshape(*records.shape[:2], -1)
    kinds = [_repeated(layout, one) for one in (scale, zero) if one is not None]
    if is_planes:
        kinds.insert(1, code_sums(layout, codes.astype(np.uint8)))
    first = layout.code_bytes
    for values in kinds:
        records[..., first : first + layout.scale_bytes] = _by_record(layout, values)
        first += layout.scale_bytes
    return stream


def unpack_stream(
    layout: StreamLayout, stream: Bytes
) -> tuple[Codes, Floats | None, Floats | None]:
    """The inverse of `pack_stream`."""
    records = stream[: layout.starts].reshape(layout.tiles, layout.steps, layout.record_bytes)
    words = np.ascontiguousarray(records[..., : layout.code_bytes]).view(np.uint32)
    first, found = layout.code_bytes, list[Floats]()
    for _ in range(layout.numbers if layout.scale else 0):
        part = np.ascontiguousarray(records[..., first : first + layout.scale_bytes])
        found.append(_from_records(layout, part))
        first += layout.scale_bytes
    codes = plane_codes(layout, words) if isinstance(layout, PlaneLayout) else _codes(layout, words)
    return codes, found[0] if found else None, found[-1] if layout.zero else None


def _places(layout: StreamLayout) -> Iterator[tuple[int, int, int, int, int, int, int]]:
    """Each part of a code: (tile, row of g = 0, column after the first, word, bit, width, low)."""
    placement = layout.placement
    for tile in range(TILES):
        for fragment in range(placement.fragments):
            for register in range(4):
                row = 16 * fragment + 8 * (register % 2)
                for plane in placement.planes:
                    word, bit = placement.position(plane, fragment, register)
                    index = tile * placement.words + word
                    for half in (0, 1):
                        column = 2 * (register // 2) + half
                        at = bit + half * placement.distance(plane)
                        yield tile, row, column, index, at, plane.width, plane.low


def _columns(layout: StreamLayout, tile: int, column: int) -> npt.NDArray[np.int64]:
    """Columns in a unit of the four lanes of a row."""
    return np.array([layout.first_column(tile, quad) + column for quad in range(4)])


def _words(layout: StreamLayout, codes: Codes) -> Words:
    """u32 [tiles, steps * units, loads, lanes, 4]."""
    rows, cols = layout.tiles * layout.tile_rows, layout.steps * layout.step
    padded = np.pad(codes, ((0, rows - layout.rows), (0, cols - layout.cols)))
    blocks = padded.reshape(layout.tiles, layout.tile_rows, -1, 64)
    units = blocks.shape[2]
    words = np.zeros((4 * layout.loads, layout.tiles, units, LANES), np.uint32)
    for tile, row, column, word, bit, width, low in _places(layout):
        part = blocks[:, row : row + 8][..., _columns(layout, tile, column)]
        lanes = part.transpose(0, 2, 1, 3).reshape(layout.tiles, units, LANES)
        piece = (lanes >> low) & (2**width - 1)
        words[word] |= piece.astype(np.uint32) << np.uint32(bit)
    ordered = words.reshape(layout.loads, LOAD // 4, layout.tiles, units, LANES)
    return np.ascontiguousarray(ordered.transpose(2, 3, 0, 4, 1))


def _codes(layout: StreamLayout, words: Words) -> Codes:
    units = layout.steps * layout.units
    shape = (layout.tiles, units, layout.loads, LANES, LOAD // 4)
    by_word = words.reshape(shape).transpose(2, 4, 0, 1, 3).reshape(-1, layout.tiles, units, 8, 4)
    kind = np.uint8 if layout.placement.bits <= 8 else np.uint16
    blocks = np.zeros((layout.tiles, layout.tile_rows, units, 64), kind)
    for tile, row, column, word, bit, width, low in _places(layout):
        piece = (by_word[word] >> np.uint32(bit)) & np.uint32(2**width - 1)
        lanes = piece.astype(kind).transpose(0, 2, 1, 3) << low
        blocks[:, row : row + 8, :, _columns(layout, tile, column)] |= lanes
    return blocks.reshape(layout.tiles * layout.tile_rows, -1)[: layout.rows, : layout.cols]


def _repeated(layout: StreamLayout, values: Floats) -> Floats:
    """f32 [rows, groups of all records] of [rows, groups]: a group of many steps is repeated."""
    repeats = max(1, layout.group // layout.step) if layout.group < layout.cols else layout.steps
    return np.repeat(values, repeats, axis=1)


def _by_record(layout: StreamLayout, wide: Floats) -> Bytes:
    """u8 [tiles, steps, scale_bytes] of f32 [rows, groups of all records]."""
    padded = np.zeros((layout.tiles * layout.tile_rows, layout.steps * layout.groups), np.float32)
    padded[: layout.rows, : wide.shape[1]] = wide[:, : padded.shape[1]]
    fragments = layout.placement.fragments
    shape = (layout.tiles, fragments, 2, 8, layout.steps, layout.groups)
    ordered = np.ascontiguousarray(padded.reshape(shape).transpose(0, 4, 3, 5, 1, 2))
    lanes = _exact(ordered, layout.scale)
    loads = lanes.reshape(layout.tiles, layout.steps, 8, -1, layout.scale_load).swapaxes(2, 3)
    return loads.reshape(layout.tiles, layout.steps, -1)


def _from_records(layout: StreamLayout, part: Bytes) -> Floats:
    fragments = layout.placement.fragments
    shape = (layout.tiles, layout.steps, 8, layout.groups, fragments, 2)
    loads = part.reshape(layout.tiles, layout.steps, -1, 8, layout.scale_load)
    lanes = np.ascontiguousarray(loads.swapaxes(2, 3))
    values = _floats(lanes, layout.scale).reshape(shape).transpose(0, 4, 5, 2, 1, 3)
    wide = values.reshape(layout.tiles * layout.tile_rows, -1)[: layout.rows]
    repeats = max(1, layout.group // layout.step) if layout.group < layout.cols else layout.steps
    return np.ascontiguousarray(wide[:, ::repeats][:, : -(-layout.cols // layout.group)])


def _exact(values: Floats, dtype: str) -> Bytes:
    """The bytes of floats in a type; PackingError if one would be rounded."""
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16) if dtype == "f16" else values
    data = np.ascontiguousarray(stored).view(np.uint8)
    if dtype == "bf16":
        data = np.ascontiguousarray(data.reshape(*values.shape, 4)[..., 2:])
    kept = _floats(data, dtype).reshape(values.shape)
    if not np.array_equal(kept, values, equal_nan=True):
        wrong = float(values[(kept != values) & ~np.isnan(values)][0])
        raise PackingError(f"a scale or zero of {wrong!r} in a layout of {dtype}")
    return data


def _floats(data: Bytes, dtype: str) -> Floats:
    flat = np.ascontiguousarray(data).reshape(-1)
    if dtype == "bf16":
        return (flat.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return flat.view(np.float16 if dtype == "f16" else np.float32).astype(np.float32)
