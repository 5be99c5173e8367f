"""Between what a format stores and the canonical form, whatever the order of the bytes."""

from dataclasses import dataclass, replace

import numpy as np

from nybble.dialects.lowbit.formats.arrays import F32, U8
from nybble.dialects.lowbit.formats.description import Description
from nybble.dialects.lowbit.formats.errors import FormatError
from nybble.dialects.lowbit.formats.scale import IntegerZero, ScaledZero, StoredMin
from nybble.dialects.lowbit.formats.structure import Rotation, Smoothing
from nybble.dialects.lowbit.formats.trees import times_unit
from nybble.dialects.lowbit.formats.weight import Mask, TreeParts, Weight

Tree = tuple[F32, TreeParts | None]
"""Values f32 [rows, groups] of a scale tree, and its parts if it has two levels."""


@dataclass(frozen=True, eq=False)
class Stored:
    """What is stored of a weight with codes.

    scale: with the element's unit in it. zero: what a stored minimum or zero point has, not
    negated. codes: u8 [rows, cols].
    """

    codes: U8
    scale: Tree | None
    zero: Tree | None = None
    zero_codes: U8 | None = None
    selector: U8 | None = None


def assemble(description: Description, stored: Stored) -> Weight:
    """The canonical form of what is stored."""
    element = description.element
    values, parts = stored.scale or (unit_scale(description, *stored.codes.shape), None)
    zero, points = None, None
    zero_values, zero_parts = stored.zero or (None, None)
    if isinstance(description.zero, StoredMin) and zero_values is not None:
        zero = -zero_values if description.zero.negated else zero_values
    elif isinstance(description.zero, ScaledZero) and zero_values is not None:
        points, zero = zero_values, scaled_zero(values, zero_values)
    elif stored.zero_codes is not None:
        zero = scaled_zero(values, stored.zero_codes.astype(np.float32))
    return Weight(
        description.spec,
        stored.codes,
        values,
        zero=zero,
        zero_point=element.zero_point,
        table=element.plain_table,
        selector=stored.selector,
        scale_parts=parts,
        zero_parts=zero_parts,
        zero_codes=stored.zero_codes,
        zero_points=points,
    )


def stored_scale(description: Description, weight: Weight) -> Tree | None:
    """The scale as it is stored, None if there is none: the element's unit is not in it."""
    if description.scale is None:
        return None
    unit, parts = description.element.unit, weight.scale_parts
    with np.errstate(over="ignore", invalid="ignore"):  # an e8m0 of 255 overflows
        values = weight.scale if unit == 1 else weight.scale / np.float32(unit)
    return values, None if parts is None else times_unit(parts, 1 / unit)


def stored_zero(description: Description, weight: Weight) -> Tree | None:
    """The minimum or zero point of a tree as it is stored, None if there is none."""
    zero = description.zero
    if zero is None or isinstance(zero, IntegerZero):
        return None
    values = weight.zero_points if isinstance(zero, ScaledZero) else weight.zero
    if values is None:
        raise FormatError(f"a weight of '{weight.spec}' without its stored zeros")
    negated = isinstance(zero, StoredMin) and zero.negated
    return -values if negated else values, weight.zero_parts


def stored_zero_codes(description: Description, weight: Weight) -> U8 | None:
    """The integer zeros, None if there are none."""
    if not isinstance(description.zero, IntegerZero):
        return None
    if weight.zero_codes is None:
        raise FormatError(f"a weight of '{weight.spec}' without its stored zeros")
    return weight.zero_codes


def unit_scale(description: Description, rows: int, cols: int) -> F32:
    """The scale of a [rows, cols] matrix of a format that stores none."""
    return np.full(description.scale_shape(rows, cols), description.element.unit, np.float32)


def scaled_zero(scale: F32, points: F32) -> F32:
    """Z of a zero in units of the scale: -S * z."""
    with np.errstate(invalid="ignore", over="ignore"):
        return -(scale * points)


def plain_weight(description: Description, values: F32, kept: Mask | None = None) -> Weight:
    """A weight that has values f32 [rows, cols] and no codes."""
    scale = np.zeros((values.shape[0], 0), np.float32)
    return Weight(description.spec, None, scale, values=values, kept=kept)


def empty_weight(description: Description, rows: int, cols: int) -> Weight:
    """A weight of no rows or no columns, with every part that its format has."""
    kept = None if description.sparsity is None else np.zeros((rows, cols), bool)
    values = np.zeros((rows, cols), np.float32)
    if description.is_plain:
        return in_basis(description, plain_weight(description, values, kept))
    nothing = np.zeros(description.scale_shape(rows, cols), np.float32)
    integers = nothing.astype(np.uint8)
    element, zero = description.element, description.zero
    weight = Weight(
        description.spec,
        values.astype(np.uint8),
        nothing,
        zero=None if zero is None else nothing,
        zero_point=element.zero_point,
        table=element.plain_table,
        selector=integers if element.choices > 1 else None,
        zero_codes=integers if isinstance(zero, IntegerZero) else None,
        zero_points=nothing if isinstance(zero, ScaledZero) else None,
        kept=kept,
    )
    return in_basis(description, weight)


def in_basis(description: Description, weight: Weight) -> Weight:
    """The weight with the transforms that its format says, smoothing yet without effect."""
    for correction in description.corrections:
        if isinstance(correction, Rotation):
            weight = replace(weight, rotation=correction.size)
        elif isinstance(correction, Smoothing):
            weight = replace(weight, smoothing=np.ones(weight.shape[1], np.float32))
    return weight


def pruned_codes(description: Description, weight: Weight) -> U8:
    """For every place, the code that decodes to 0, u8 [rows, cols]; 0 where there is none."""
    rows, cols = weight.shape
    table = description.element.plain_table
    if table is not None:
        plain = table.reshape(-1, table.shape[-1])
        zeros = np.flatnonzero((plain == 0).all(axis=0))
        code = int(zeros[0]) if zeros.size and weight.zero is None else 0
        return np.full((rows, cols), code, np.uint8)
    if weight.zero_codes is None:
        code = 0 if weight.zero is not None else description.element.zero_point
        return np.full((rows, cols), code, np.uint8)
    tall, groups = weight.zero_codes.shape
    fits = weight.zero_codes < 2**description.element.bits
    codes = np.where(fits, weight.zero_codes, np.uint8(0))
    wide = np.repeat(codes, cols // max(groups, 1), axis=1)
    return np.repeat(wide, rows // max(tall, 1), axis=0)


def check_codes(description: Description, codes: U8) -> None:
    """Raise FormatError for codes with more bits than the element has."""
    bits = description.element.bits
    if bits < 8 and codes.size and codes.max() >> bits:
        raise FormatError(
            f"code {codes.max()} in format '{description.spec}'", accepted=f"0 to {2**bits - 1}"
        )
