"""Weights as the words that an array reads: encoded offline, in the order of its tiles."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nybble.backends.fpga.design import Design
from nybble.backends.fpga.elements import integers_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.attrs import SparseAttr, ValuesAttr
from nybble.dialects.fpga.processes import FLOATS, row_words
from nybble.dialects.fpga.words import U8, Integers, power_of_two, to_words
from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.lowbit.formats.scale import SuperScale

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Packed:
    """What a kernel reads of a weight.

    codes: a memory for each channel. indices, scales: of a weight that has them, else none.
    factors: floats of groups. bias: of a product that has one.
    """

    codes: tuple[U8, ...]
    indices: tuple[U8, ...]
    scales: tuple[U8, ...]
    factors: U8
    bias: tuple[U8, ...] = ()

    @property
    def memories(self) -> tuple[U8, ...]:
        """In the order of a kernel's arguments."""
        return (*self.codes, *self.indices, *self.scales, self.factors, *self.bias)


def pack(design: Design, weight: Weight, bias: F32 | None = None) -> Packed:
    """The memories of a weight and a bias f32 [rows], u8 [words, bytes] each.

    Raises NybbleError for another weight, or a bias where there is none or the reverse.
    """
    made = pack_weight(design, weight)
    if design.has_bias != (bias is not None):
        what = "no bias" if bias is None else "a bias"
        rows = design.tiling.rows.data
        raise NybbleError(
            f"{what} for a kernel of '{design.spec}'",
            accepted="one that adds a bias" if bias is not None else f"a bias f32 [{rows}]",
        )
    return made if bias is None else replace(made, bias=(pack_bias(design, bias),))


def pack_weight(design: Design, weight: Weight) -> Packed:
    """The memories of a weight alone; raises NybbleError for another weight."""
    shape = (design.tiling.rows.data, design.tiling.cols.data)
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
        pack_codes(design, placed),
        pack_indices(design, placed, weight),
        pack_scales(design, weight),
        pack_factors(design, weight),
    )


def pack_bias(design: Design, bias: F32) -> U8:
    """A bias f32 [rows] to a memory; padded rows have 0."""
    return float_words(in_rows(design, bias[:, None]))


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


def pack_indices(design: Design, placed: Integers, weight: Weight) -> tuple[U8, ...]:
    """Which columns are kept, once for rows that share them; or which tables groups choose."""
    element, tiling = design.element, design.tiling
    if not element.index_lanes(tiling):
        return ()
    if isinstance(element, SparseAttr):
        kept = element.kept(placed)
        words = in_order(kept[:, :1] if element.is_shared else kept)
    else:
        assert weight.selector is not None
        chosen = in_rows(design, weight.selector.astype(np.int64))
        groups = chosen.reshape(tiling.groups, tiling.row_blocks, -1)
        words = np.repeat(groups, tiling.tiles_per_group, axis=0)
        words = words.reshape(-1, tiling.high.data)
    return split_words(words, element.index_bits, 1)


def pack_scales(design: Design, weight: Weight) -> tuple[U8, ...]:
    """Integer scales of groups, where a kernel multiplies by them; padded rows have 0."""
    if design.code is None:
        return ()
    scale, parts = design.description.scale, weight.scale_parts
    assert isinstance(scale, SuperScale)
    assert parts is not None
    bits = design.code.bitwidth
    codes = in_rows(design, parts.codes.astype(np.int64) - scale.offset)
    return split_words(codes & ((1 << bits) - 1), bits, 1)


def in_rows(design: Design, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[rows, groups] to words [groups * row_blocks, high]; padded rows are 0."""
    tiling = design.tiling
    padded = np.zeros((tiling.row_blocks * tiling.high.data, values.shape[1]), values.dtype)
    padded[: len(values)] = values
    return padded.T.reshape(-1, tiling.high.data)


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


def pack_factors(design: Design, weight: Weight) -> U8:
    """Floats of groups to a memory: scales, and zeros where there are."""
    scale = weight.scale
    if design.code is not None:
        assert weight.scale_parts is not None
        scale = weight.scale_parts.base
    if isinstance(design.element, ValuesAttr):
        scale = scale / np.float32(integers_of(design.description)[1])
    words = in_rows(design, scale)
    if weight.zero is not None:
        words = np.concatenate([words, in_rows(design, weight.zero)], axis=1)
    return float_words(words)


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
