"""Weights as the words that an array reads: encoded offline, in the order of its tiles."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.backends.fpga.design import Design
from nybble.backends.fpga.elements import integers_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.attrs import MultiplyAttr
from nybble.dialects.fpga.processes import FLOATS, row_words
from nybble.dialects.fpga.words import U8, Integers, power_of_two, to_words
from nybble.dialects.lowbit.formats import Weight

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Packed:
    """What a kernel reads of a weight. codes: a memory for each channel; factors: its scales."""

    codes: tuple[U8, ...]
    factors: U8


def pack(design: Design, weight: Weight) -> Packed:
    """The memories of a weight, u8 [words, bytes] each; raises NybbleError for another's."""
    tiling = design.tiling
    shape = (tiling.rows.data, tiling.cols.data)
    if weight.spec != design.spec or weight.shape != shape:
        raise NybbleError(
            f"a weight of '{weight.spec}' {weight.shape} for a kernel of '{design.spec}'",
            accepted=f"'{design.spec}' {shape}",
        )
    return Packed(pack_codes(design, weight.require_codes()), pack_factors(design, weight.scale))


def pack_codes(design: Design, codes: U8) -> tuple[U8, ...]:
    """Codes [rows, cols] to a memory for each channel."""
    tiling, element = design.tiling, design.element
    lanes, width, high = tiling.lanes.data, tiling.width.data, tiling.high.data
    places = tiling.columns().reshape(-1)
    padded = np.full((tiling.row_blocks * high, len(places)), -1, np.int64)
    known = codes.astype(np.int64)[:, np.maximum(places, 0)]
    padded[: len(codes)] = np.where(places >= 0, known, -1)
    shape = (tiling.row_blocks, high, tiling.tiles, lanes, width)
    fields = element.encode(padded.reshape(shape))
    words = fields.transpose(2, 0, 1, 4, 3).reshape(tiling.tiles * tiling.row_blocks, -1)
    return split_words(words, element.field_bits, design.channels)


def split_words(fields: Integers, bits: int, channels: int) -> tuple[U8, ...]:
    """Fields [words, lanes] in as many memories, equally many fields in each but the last."""
    share = -(-fields.shape[1] // channels)
    width = power_of_two(share * bits)
    parts = (fields[:, first : first + share] for first in range(0, fields.shape[1], share))
    return tuple(to_words(part, bits, width) for part in parts)


def pack_factors(design: Design, scale: F32) -> U8:
    """Scales [rows, groups] to a memory; padded rows have scale 0."""
    tiling = design.tiling
    if isinstance(design.element, MultiplyAttr):
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
