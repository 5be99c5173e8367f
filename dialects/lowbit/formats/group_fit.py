"""Rounding groups of weights: ideal scales, what is stored of them, nearest codes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.arrays import F32, U8
from nybble.dialects.lowbit.formats.assembly import scaled_zero
from nybble.dialects.lowbit.formats.description import Description
from nybble.dialects.lowbit.formats.element import Uniform
from nybble.dialects.lowbit.formats.fitting import ideal_scale, value_range
from nybble.dialects.lowbit.formats.ggml_rounding import ROUNDINGS
from nybble.dialects.lowbit.formats.nearest import code_values, nearest_codes, ratio
from nybble.dialects.lowbit.formats.rounding import Rounding
from nybble.dialects.lowbit.formats.scale import (
    FloatScale,
    IntegerZero,
    ScaledZero,
    StoredMin,
    SuperScale,
)
from nybble.dialects.lowbit.formats.trees import can_be_negative, store_tree, times_unit
from nybble.dialects.lowbit.formats.weight import TreeParts, Weight
from nybble.dialects.numpy_ref.quantize import quantize_rows

_ACTIVATIONS = (Uniform(8, 128, narrow=True), FloatScale("f32"))
"""Element and scale of `a8gG`."""

_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
_TWO_LEVELS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)


def quantize_groups(description: Description, groups: F32, rounding: Rounding) -> Weight:
    """The weight [rows, count * size] of f32 groups [rows, count, size], as if along rows."""
    if description.spec in ROUNDINGS:
        return _round_like_ggml(description, groups)
    if (description.element, description.scale) == _ACTIVATIONS:
        return _round_activations(description, groups)
    if isinstance(description.zero, StoredMin):
        return _fit_minimum(description, description.zero, groups, rounding.spread)
    if description.zero is not None:
        return _fit_zero_point(description, description.zero, groups)
    return _fit_centred(description, groups, rounding)


def _weight(description: Description, groups: F32, codes: U8, scale: F32) -> Weight:
    rows, count, size = groups.shape
    element = description.element
    return Weight(
        description.spec,
        codes.reshape(rows, count * size),
        scale,
        zero_point=element.zero_point,
        table=element.plain_table,
    )


def _stored_scale(description: Description, ideal: F32) -> tuple[F32, TreeParts | None]:
    """The stored scale with the element's unit in it, as unpacking gives it."""
    unit = np.float32(description.element.unit)
    if description.scale is None:
        return np.full_like(ideal, unit), None
    stored, parts = store_tree(description.scale, description.grouping, ideal / unit)
    return stored * unit, None if parts is None else times_unit(parts, float(unit))


def _round_like_ggml(description: Description, groups: F32) -> Weight:
    codes, ideal, minimum = ROUNDINGS[description.spec](groups)
    scale, _ = _stored_scale(description, ideal[:, :, 0])
    weight = _weight(description, groups, codes, scale)
    if minimum is None or not isinstance(description.zero, StoredMin):
        return weight
    zero, _ = store_tree(description.zero.tree, description.grouping, minimum[:, :, 0])
    return replace(weight, zero=zero)


def _round_activations(description: Description, groups: F32) -> Weight:
    """With the arithmetic of `numpy_ref.quantize`, that of kernels too: ties go the same way."""
    rows, count, size = groups.shape
    rounded = quantize_rows(groups.reshape(rows, count * size), size)
    codes = rounded.q.view(np.uint8) ^ np.uint8(128)
    return _weight(description, groups, codes, rounded.s)


def _codes(
    description: Description, groups: F32, scale: F32, zero: F32 | None = None, choice: int = 0
) -> U8:
    centred = groups if zero is None else groups - zero[:, :, None]
    return nearest_codes(description.element, ratio(centred, scale[:, :, None]), choice)


def _error(
    description: Description, groups: F32, scale: F32, zero: F32 | None = None, choice: int = 0
) -> F32:
    """Squared error of each group under an unrounded scale and zero: f32 [rows, groups]."""
    codes = _codes(description, groups, scale, zero, choice)
    values = code_values(description.element, codes, choice) * scale[:, :, None]
    difference = values - groups if zero is None else values + zero[:, :, None] - groups
    return np.square(difference).sum(axis=-1)


def _factors(description: Description) -> tuple[float, ...]:
    """What ideal ranges are multiplied by to find the one with the least error.

    Formats of one level take the extremes as they are (round to nearest, as everybody's baseline
    does); those with sub-scales are searched, as ggml does for its K-quants. So are codes of one
    bit under a zero, whose two values are far too wide as the extremes.
    """
    if description.element.bits == 1 and description.zero is not None:
        return _TWO_LEVELS
    return _SHRINKS if isinstance(description.scale, SuperScale) else (1.0,)


def _least(count: int, error: Callable[[int], F32], like: F32) -> npt.NDArray[np.intp]:
    """Which of `count` candidates has the least error, for each group of f32 [rows, groups]."""
    if count == 1:
        return np.zeros(like.shape, np.intp)
    return np.argmin([error(index) for index in range(count)], axis=0)


def _pick(best: npt.NDArray[np.intp], candidates: list[F32]) -> F32:
    """candidates[best[r, g]][r, g]."""
    return np.take_along_axis(np.stack(candidates), best[None], axis=0)[0]


def _fit_minimum(description: Description, zero: StoredMin, groups: F32, spread: float) -> Weight:
    low, high = (np.float32(end) for end in value_range(description.element))
    bottom, top = groups.min(axis=-1), groups.max(axis=-1)
    if not can_be_negative(zero.tree):
        bottom = np.minimum(bottom, 0) if zero.negated else np.maximum(bottom, 0)
    top = np.maximum(top, bottom)
    centre, half = (bottom + top) / 2, (top - bottom) / 2 * np.float32(spread)
    shrunk = [half * np.float32(factor) for factor in _factors(description)]
    scales = [2 * size / (high - low) for size in shrunk]

    def error(index: int) -> F32:
        zeros = centre - shrunk[index] - scales[index] * low
        return _error(description, groups, scales[index], zeros)

    best = _least(len(scales), error, bottom)
    scale, scale_parts = _stored_scale(description, _pick(best, scales))
    minimum = centre - _pick(best, shrunk) - scale * low
    sign = np.float32(-1 if zero.negated else 1)
    stored, zero_parts = store_tree(zero.tree, description.grouping, sign * minimum)
    kept = sign * stored
    weight = _weight(description, groups, _codes(description, groups, scale, kept), scale)
    return replace(weight, zero=kept, scale_parts=scale_parts, zero_parts=zero_parts)


def _fit_zero_point(
    description: Description, zero: IntegerZero | ScaledZero, groups: F32
) -> Weight:
    """With a zero in units of the scale: the range includes 0, so that 0 is a code or nearly."""
    bottom = np.minimum(groups.min(axis=-1), 0)
    top = np.maximum(groups.max(axis=-1), 0)
    step = (top - bottom) / np.float32(2**description.element.bits - 1)
    factors = [np.float32(factor) for factor in _factors(description)]

    def error(index: int) -> F32:
        zeros = bottom * factors[index]
        if isinstance(zero, IntegerZero):
            zeros = np.rint(ratio(zeros, step * factors[index])) * step * factors[index]
        return _error(description, groups, step * factors[index], zeros)

    chosen = np.array(factors)[_least(len(factors), error, step)]
    scale, parts = _stored_scale(description, step * chosen)
    points = ratio(-bottom * chosen, scale)
    zero_codes, zero_parts = None, None
    if isinstance(zero, IntegerZero):
        zero_codes = np.clip(np.rint(points), 0, 2**zero.width - 1).astype(np.uint8)
        points = zero_codes.astype(np.float32)
    else:
        points, zero_parts = store_tree(zero.tree, description.grouping, points)
    kept = scaled_zero(scale, points)
    weight = _weight(description, groups, _codes(description, groups, scale, kept), scale)
    return replace(
        weight,
        zero=kept,
        zero_codes=zero_codes,
        zero_points=None if zero_codes is not None else points,
        scale_parts=parts,
        zero_parts=zero_parts,
    )


def _fit_centred(description: Description, groups: F32, rounding: Rounding) -> Weight:
    """Without a zero: of the tables and ranges each group takes the ones with the least error."""
    element = description.element
    choices, factors = range(element.choices), _factors(description)
    if element.choices > 1 and description.scale and can_be_negative(description.scale):
        # Under the other sign a lopsided table reaches less far, which may be the lesser error.
        factors = (*factors, *(-factor for factor in factors))
    ideals = [
        ideal_scale(element, description.scale, groups, choice, rounding.ternary)
        for choice in choices
    ]
    scales = [ideal * np.float32(factor) for factor in factors for ideal in ideals]

    def error(index: int) -> F32:
        return _error(description, groups, scales[index], choice=index % len(choices))

    best = _least(len(scales), error, scales[0])
    selector = (best % len(choices)).astype(np.uint8)
    scale, parts = _stored_scale(description, _pick(best, scales))
    codes = _codes(description, groups, scale)
    for choice in choices[1:]:
        other = _codes(description, groups, scale, choice=choice)
        codes = np.where((selector == choice)[:, :, None], other, codes)
    weight = _weight(description, groups, codes, scale)
    return replace(weight, scale_parts=parts, selector=selector if len(choices) > 1 else None)
