"""Weights as the words that an array reads: encoded offline, in the order of its tiles."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.backends.fpga.design import Design
from nybble.backends.fpga.elements import integers_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.attrs import SparseAttr, ValuesAttr
from nybble.dialects.fpga.processes import FLOATS, row_words
from nybble.dialects.fpga.words import U8, Integers, power_of_two, to_words
from nybble.dialects.lowbit.formats import Weight

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Packed:
    """What a kernel reads of a weight.

    codes: a memory for each channel. indices: of a sparse weight, else none. factors: its scales.
    """

    codes: tuple[U8, ...]
    indices: tuple[U8, ...]
    factors: U8

    @property
    def memories(self) -> tuple[U8, ...]:
        """In the order of a kernel's arguments."""
        return (*self.codes, *self.indices, self.factors)


def pack(design: Design, weight: Weight) -> Packed:
    """The memories of a weight, u8 [words, bytes] each; raises NybbleError for another's."""
    tiling = design.tiling
    shape = (tiling.rows.data, tiling.cols.data)
    if weight.spec != design.spec or weight.shape != shape:
        raise NybbleError(
            f"a weight of '{weight.spec}' {weight.shape} for a kernel of '{design.spec}'",
            accepted=f"'{design.spec}' {shape}",
        )
    codes = weight.require_codes().astype(np.int64)
    if weight.kept is not None:
        codes = np.where(weight.kept, codes, -1)
    placed = place_codes(design, codes)
    return Packed(
        pack_codes(design, placed), pack_indices(design, placed), pack_factors(design, weight.scale)
    )


def place_codes(design: Design, codes: Integers) -> Integers:
    """Codes [rows, cols] at the places of a tiling: [row_blocks, high, tiles, lanes, width]."""
    tiling = design.tiling
    places = tiling.columns().reshape(-1)
    padded = np.full((tiling.row_blocks * tiling.high.data, len(places)), -1, np.int64)
    padded[: len(codes)] = np.where(places >= 0, codes[:, np.maximum(places, 0)], -1)
    shape = (tiling.row_blocks, tiling.high.data, tiling.tiles, tiling.lanes.data, -1)
    return padded.reshape(shape)


def pack_codes(design: Design, placed: Integers) -> tuple[U8, ...]:
    """Codes at their places to a memory for each channel."""
    words = in_order(design.element.encode(placed))
    return split_words(words, design.element.field_bits, design.channels)


def pack_indices(design: Design, placed: Integers) -> tuple[U8, ...]:
    """Which columns are kept, once for rows that share them; nothing for a dense weight."""
    element = design.element
    if not isinstance(element, SparseAttr):
        return ()
    kept = element.kept(placed)
    words = in_order(kept[:, :1] if element.is_shared else kept)
    return split_words(words, element.index_bits, 1)


def in_order(fields: Integers) -> Integers:
    """[row_blocks, high, tiles, lanes, fields] to words: by tile and row block, then fields."""
    blocks, _, tiles, _, _ = fields.shape
    return fields.transpose(2, 0, 1, 4, 3).reshape(tiles * blocks, -1)


def split_words(fields: Integers, bits: int, channels: int) -> tuple[U8, ...]:
    """Fields [words, lanes] in as many memories, equally many fields in each but the last."""
    share = -(-fields.shape[1] // channels)
    width = power_of_two(share * bits)
    parts = (fields[:, first : first + share] for first in range(0, fields.shape[1], share))
    return tuple(to_words(part, bits, width) for part in parts)


def pack_factors(design: Design, scale: F32) -> U8:
    """Scales [rows, groups] to a memory; padded rows have scale 0."""
    tiling = design.tiling
    if isinstance(design.element, ValuesAttr):
        scale = scale / np.float32(integers_of(design.description)[1])
    high = tiling.high.data
    padded = np.zeros((tiling.row_blocks * high, tiling.groups), np.float32)
    padded[: len(scale)] = scale
    words = padded.reshape(tiling.row_blocks, high, tiling.groups).transpose(2, 0, 1)
    return float_words(words.reshape(-1, high))


def float_words(values: F32) -> U8:
    """f32 [words, lanes] to bytes of words as wide as a bus can be."""
    width = power_of_two(32 * values.shape[1]) // 8
    words = np.zeros((len(values), width), np.uint8)
    raw = np.ascontiguousarray(values, np.float32).view(np.uint8)
    words[:, : raw.shape[1]] = raw.reshape(len(values), -1)
    return words


def pack_activation(design: Design, x: F32) -> U8:
    """x [tokens, cols] to the words of memory that a kernel reads."""
    tokens, cols = x.shape
    padded = np.zeros((tokens, row_words(cols) * FLOATS), np.float32)
    padded[:, :cols] = x
    return padded.view(np.uint8).reshape(-1, 4 * FLOATS)


def unpack_results(design: Design, memory: U8) -> F32:
    """Memory that a kernel wrote to f32 [tokens, rows]."""
    tiling = design.tiling
    floats = np.ascontiguousarray(memory).view(np.float32)[:, : tiling.sums]
    shape = (tiling.passes, tiling.row_blocks * tiling.high.data, tiling.wide.data)
    values = floats.reshape(shape).transpose(0, 2, 1).reshape(-1, shape[1])
    return values[: tiling.tokens.data, : tiling.rows.data]
