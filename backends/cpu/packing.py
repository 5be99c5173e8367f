"""Packing of weights into compute layouts, and the way back: see `tile_layout`."""

from collections.abc import Iterator
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.float_bytes import Bytes, Floats, from_floats, to_floats
from nybble.backends.cpu.kept_codes import split_kept
from nybble.backends.cpu.tile_layout import (
    LANES,
    SUBTILES,
    TILE,
    DenseLayout,
    LayoutError,
    TileLayout,
)
from nybble.dialects.lowbit.formats.weight import TreeParts, Weight

_CHUNK_BYTES = 4 << 20
Scalar = TypeVar("Scalar", bound=np.generic)
Matrix: TypeAlias = npt.NDArray[Scalar]


def pack(weight: Weight, layout: TileLayout) -> Bytes:
    """The bytes of a weight in a tile layout: u8 [layout.size].

    Raises LayoutError where the weight is not what the layout describes, or a scale or zero is not
    a number of the layout's type.
    """
    codes = weight.require_codes()
    _check(codes, weight, layout)
    out = np.empty((layout.tiles, layout.groups // layout.count, layout.run_bytes), np.uint8)
    for tiles, rows in _chunks(layout):
        blocks, shared = _parts(out[tiles], layout)
        if layout.keep:
            assert weight.kept is not None
            kept, patterns = split_kept(codes[rows], weight.kept[rows], layout.keep)
            made = _code_bytes(_padded(kept), layout, _padded(patterns))
        else:
            made = _code_bytes(_padded(codes[rows]), layout)
        blocks[..., : layout.code_bytes] = made
        blocks[..., layout.code_bytes : layout.zero] = _scale_bytes(weight, layout, rows)
        if layout.by_subtile:
            blocks[..., layout.zero : layout.choice] = _subtile_bytes(weight, layout, rows)
        elif layout.has_zero:
            blocks[..., layout.zero : layout.choice] = _zero_bytes(weight, layout, rows)
        if weight.selector is not None:
            blocks[..., layout.choice :] = _by_group(weight.selector[rows], layout)
        if layout.tree is not None:
            shared[...] = _shared_bytes(weight, layout, rows)
    return out.reshape(-1)


def _parts(runs: Bytes, layout: TileLayout) -> tuple[Bytes, Bytes]:
    """Views of u8 [t, runs, run_bytes]: [t, runs, count, block_bytes] and what groups share."""
    end = layout.count * layout.block_bytes
    blocks = runs[..., :end].reshape(*runs.shape[:2], layout.count, layout.block_bytes)
    return blocks, runs[..., end:]


def unpack(data: Bytes, layout: TileLayout) -> tuple[Bytes, Floats, Floats | None]:
    """Inverse of `pack`: codes u8 [rows, cols], scales f32 [rows, groups], zeros alike or None.

    Not of a layout that keeps some columns alone.
    """
    assert not layout.keep
    runs = data.reshape(layout.tiles, layout.groups // layout.count, layout.run_bytes)
    blocks, shared = _parts(runs, layout)
    codes = _codes_from_bytes(blocks[..., : layout.code_bytes], layout)
    scales, zeros = (
        blocks[..., layout.code_bytes : layout.zero],
        blocks[..., layout.zero : layout.choice],
    )
    if layout.by_subtile:
        return (codes, *_from_subtiles(scales, zeros, layout))
    if layout.tree is None:
        scale = _floats_by_row(scales, layout)
    else:
        scale = _products(scales, shared[..., : layout.float_bytes], layout, layout.tree.offset)
    if not layout.has_zero:
        return codes, scale, None
    if layout.integer_zero:
        return codes, scale, -(scale * _by_row(zeros, layout))
    if layout.tree is None:
        return codes, scale, _floats_by_row(zeros, layout)
    floats = shared[..., layout.float_bytes :]
    return codes, scale, _products(zeros, floats, layout, layout.tree.zero_offset)


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
    zero = weight.zero_codes if layout.integer_zero else weight.zero
    if (zero is not None) != layout.has_zero:
        raise LayoutError(f"the weight {'lacks' if layout.has_zero else 'has'} zeros: {layout}")
    if (layout.tree is not None or layout.by_subtile) and weight.scale_parts is None:
        raise LayoutError(f"the weight's scales are not put together: {layout}")
    if (weight.selector is not None) != layout.has_choice:
        raise LayoutError(f"the weight {'lacks' if layout.has_choice else 'has'} choices: {layout}")
    if int(codes.max(initial=0)) >> layout.bits:
        raise LayoutError(f"a code of {int(codes.max())} has more than {layout.bits} bits")


def _chunks(layout: TileLayout) -> Iterator[tuple[slice, slice]]:
    """Slices of tiles and of their rows, a few megabytes at a time."""
    step = max(1, _CHUNK_BYTES // (TILE * layout.cols))
    for first in range(0, layout.tiles, step):
        last = min(first + step, layout.tiles)
        yield slice(first, last), slice(first * TILE, min(last * TILE, layout.rows))


def _padded(rows: Matrix[Scalar]) -> Matrix[Scalar]:
    missing = -len(rows) % TILE
    return np.pad(rows, ((0, missing), (0, 0))) if missing else rows


def _code_bytes(codes: Bytes, layout: TileLayout, patterns: Bytes | None = None) -> Bytes:
    """u8 [64 t, stored codes] -> u8 [t, runs, count, code_bytes]; patterns: u8 [64 t, cols / 4]."""
    words = np.ascontiguousarray(codes).view(np.uint32)
    words = words.reshape(-1, SUBTILES, LANES, layout.groups, layout.steps, layout.kept // 4)
    parts = [_piece_bytes(words, layout, index) for index in range(len(layout.widths))]
    if patterns is not None:
        parts.append(_pattern_bytes(patterns, layout))
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    return joined.reshape(len(joined), -1, layout.count, layout.code_bytes)


def _piece_bytes(words: npt.NDArray[np.uint32], layout: TileLayout, index: int) -> Bytes:
    """Codes u32 [t, 4, 16, groups, steps, step / 4] -> u8 [t, groups, steps, bytes of a piece]."""
    width, shift = layout.widths[index], layout.shift(index)
    planes = words.reshape(*words.shape[:-1], layout.kept * width // 32, 8 // width)
    merged = np.zeros(planes.shape[:-1], np.uint32)
    for plane in range(8 // width):
        piece = (planes[..., plane] >> np.uint32(shift)) & _mask(width)
        merged |= piece << np.uint32(plane * width)
    ordered = np.ascontiguousarray(merged.transpose(0, 3, 4, 5, 1, 2)).view(np.uint8)
    return ordered.reshape(*ordered.shape[:3], -1)


def _pattern_bytes(patterns: Bytes, layout: TileLayout) -> Bytes:
    """Patterns u8 [64 t, cols / 4] -> u8 [t, groups, steps, bytes]."""
    pairs = patterns[:, ::2] | patterns[:, 1::2] << 4
    words = np.ascontiguousarray(pairs).view(np.uint32)
    words = words.reshape(-1, SUBTILES, LANES, layout.groups, layout.steps, layout.step // 32)
    ordered = np.ascontiguousarray(words.transpose(0, 3, 4, 5, 1, 2)).view(np.uint8)
    return ordered.reshape(*ordered.shape[:3], -1)


def _mask(width: int) -> np.uint32:
    """The low `width` bits of each byte."""
    return np.uint32(0x01010101 * (2**width - 1))


def _codes_from_bytes(blocks: Bytes, layout: TileLayout) -> Bytes:
    steps = np.ascontiguousarray(blocks).reshape(
        layout.tiles, layout.groups, layout.steps, layout.step_bytes
    )
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


def _by_tile(values: Matrix[Scalar], columns: int) -> Matrix[Scalar]:
    """[rows, columns] -> [t, columns, 64]."""
    return np.ascontiguousarray(_padded(values).reshape(-1, TILE, columns).transpose(0, 2, 1))


def _by_group(values: Matrix[Scalar], layout: TileLayout) -> Matrix[Scalar]:
    """[rows, groups] -> [t, runs, count, 64]."""
    tiles = _by_tile(values, layout.groups)
    return tiles.reshape(len(tiles), -1, layout.count, TILE)


def _scale_bytes(weight: Weight, layout: TileLayout, rows: slice) -> Bytes:
    """[t, runs, count, bytes] of the scales of groups."""
    if layout.by_subtile:
        merged = np.zeros((rows.stop - rows.start, layout.groups), np.uint8)
        for part, shift in zip(_parts_of(weight), (0, 4), strict=False):
            merged |= part.codes[rows] << shift
        return _by_group(merged, layout)
    if layout.tree is None:
        return _exact(_by_group(weight.scale[rows], layout), layout)
    assert weight.scale_parts is not None
    return _by_group(weight.scale_parts.codes[rows], layout)


def _zero_bytes(weight: Weight, layout: TileLayout, rows: slice) -> Bytes:
    """[t, runs, count, bytes] of the zeros of groups."""
    if layout.integer_zero:
        assert weight.zero_codes is not None
        return _by_group(weight.zero_codes[rows], layout)
    if layout.tree is None:
        assert weight.zero is not None
        return _exact(_by_group(weight.zero[rows], layout), layout)
    assert weight.zero_parts is not None
    return _by_group(weight.zero_parts.codes[rows], layout)


def _parts_of(weight: Weight) -> list[TreeParts]:
    return [part for part in (weight.scale_parts, weight.zero_parts) if part is not None]


def _subtile_bytes(weight: Weight, layout: TileLayout, rows: slice) -> Bytes:
    """[t, groups, 1, bytes] of the floats that sub-tiles share: [sub-tile][float]."""
    kinds: list[Matrix[np.float32]] = []
    first, last = rows.start // LANES, -(-rows.stop // LANES)
    for part in _parts_of(weight):
        for floats in (part.base, part.low):
            assert floats is not None
            some = np.pad(floats[first:last], ((0, (first - last) % SUBTILES), (0, 0)))
            kinds.append(some.reshape(-1, SUBTILES, layout.groups).transpose(0, 2, 1))
    stacked = np.ascontiguousarray(np.stack(kinds, axis=-1))
    return _exact(stacked.reshape(*stacked.shape[:2], 1, -1), layout)


def _from_subtiles(small: Bytes, floats: Bytes, layout: TileLayout) -> tuple[Floats, Floats | None]:
    """Scales and zeros f32 [rows, groups] of bytes of rows and floats of sub-tiles."""
    both = _by_row(np.ascontiguousarray(small), layout)
    shared = from_floats(np.ascontiguousarray(floats), layout.scale)
    shared = shared.reshape(layout.tiles, layout.groups, SUBTILES, -1).transpose(3, 0, 2, 1)
    wide = np.repeat(shared.reshape(len(shared), -1, layout.groups), LANES, axis=1)
    wide = wide[:, : layout.rows]
    scale = wide[0] * (both & 15).astype(np.float32) + wide[1]
    if not layout.has_zero:
        return scale, None
    return scale, -(scale * (wide[2] * (both >> 4).astype(np.float32) + wide[3]))


def _shared_bytes(weight: Weight, layout: TileLayout, rows: slice) -> Bytes:
    """[t, runs, shared_bytes]."""
    own = layout.has_zero and not layout.integer_zero
    trees = (weight.scale_parts, weight.zero_parts if own else None)
    bases = [_by_tile(tree.base[rows], tree.base.shape[1]) for tree in trees if tree is not None]
    return np.concatenate([_exact(base, layout) for base in bases], axis=-1)


def _exact(values: Floats, layout: TileLayout) -> Bytes:
    """The bytes of floats in the layout's type; LayoutError if one would be rounded."""
    wide = values.astype(np.float32)
    data = to_floats(wide, layout.scale)
    kept = from_floats(data, layout.scale).reshape(wide.shape)
    if not np.array_equal(kept, wide, equal_nan=True):
        wrong = float(wide[(kept != wide) & ~np.isnan(wide)][0])
        raise LayoutError(f"a scale or zero of {wrong!r} in a layout of {layout.scale}")
    return data


def _by_row(values: Matrix[Scalar], layout: TileLayout) -> Matrix[Scalar]:
    """[t, .., 64], one for every group, -> [rows, groups]."""
    rows = values.reshape(layout.tiles, -1, TILE).transpose(0, 2, 1)
    return np.ascontiguousarray(rows).reshape(layout.tiles * TILE, -1)[: layout.rows]


def _floats_by_row(blocks: Bytes, layout: TileLayout) -> Floats:
    """u8 [t, .., bytes of 64 floats] -> f32 [rows, ..]."""
    return _by_row(from_floats(np.ascontiguousarray(blocks), layout.scale), layout)


def _products(codes: Bytes, floats: Bytes, layout: TileLayout, offset: int) -> Floats:
    """f32 [rows, groups]: the float of its run times what each group has."""
    small = _by_row(np.ascontiguousarray(codes), layout).astype(np.float32) - np.float32(offset)
    with np.errstate(invalid="ignore", over="ignore"):
        wide = np.repeat(_floats_by_row(floats, layout), layout.count, axis=1) * small
    return wide.astype(np.float32)
