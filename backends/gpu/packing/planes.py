"""Codes by bit plane into the words of lanes and back, with numpy; see `stream.PlaneLayout`."""

import numpy as np
import numpy.typing as npt

from nybble.backends.gpu.packing.stream import LANES, LOAD, PlaneLayout

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]
WORD = 32
"""Columns of a word."""


def plane_words(layout: PlaneLayout, codes: Bytes) -> Words:
    """u32 [tiles, steps * units, loads, lanes, 4] of u8 [rows, cols]."""
    tiles, fragments, words = layout.tiles, layout.placement.fragments, layout.lane_words
    rows, cols = tiles * layout.tile_rows, layout.steps * layout.step
    padded = np.pad(codes, ((0, rows - layout.rows), (0, cols - layout.cols)))
    bits = [padded >> plane & 1 for plane in range(layout.placement.bits)]
    packed = np.packbits(np.stack(bits), axis=2, bitorder="little").view(np.uint32)
    shape = (len(bits), tiles, fragments, 2, 8, cols // layout.block, 4, words)
    plane, tile, fragment, upper, row, unit, quad, word = range(8)
    order = (tile, unit, row, quad, fragment, plane, word, upper)
    lanes = packed.reshape(shape).transpose(order)
    by_lane = lanes.reshape(tiles, -1, LANES, layout.loads, LOAD // 4)
    return np.ascontiguousarray(by_lane.transpose(0, 1, 3, 2, 4))


def plane_codes(layout: PlaneLayout, words: Words) -> Bytes:
    """The inverse of `plane_words`, of as many words."""
    tiles, fragments = layout.tiles, layout.placement.fragments
    planes, units = layout.placement.bits, layout.steps * layout.units
    by_lane = words.reshape(tiles, units, layout.loads, LANES, LOAD // 4).transpose(0, 1, 3, 2, 4)
    shape = (tiles, units, 8, 4, fragments, planes, layout.lane_words, 2)
    tile, unit, row, quad, fragment, plane, word, upper = range(8)
    order = (plane, tile, fragment, upper, row, unit, quad, word)
    ordered = np.ascontiguousarray(by_lane.reshape(shape).transpose(order))
    flat = ordered.reshape(planes, tiles * layout.tile_rows, -1).view(np.uint8)
    bits = np.unpackbits(flat, axis=2, bitorder="little")
    codes = sum(bits[i] << np.uint8(i) for i in range(planes))
    return np.asarray(codes, np.uint8)[: layout.rows, : layout.cols]


def code_sums(layout: PlaneLayout, codes: Bytes) -> npt.NDArray[np.float32]:
    """f32 [rows, groups of all records]: the sum of the codes of each."""
    size = layout.step // layout.groups
    return codes.reshape(len(codes), -1, size).sum(axis=2).astype(np.float32)
