"""Rounding a matrix to any coded format: ideal scales, what is stored of them, nearest codes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.arrays import F32, U8, check_magnitude, check_matrix
from nybble.dialects.lowbit.formats.codec import (
    empty_weight,
    integer_zero,
    plain_weight,
    unit_scale,
)
from nybble.dialects.lowbit.formats.corrections import attach, prune
from nybble.dialects.lowbit.formats.description import Description
from nybble.dialects.lowbit.formats.element import EntropyCoded, TwoDigits
from nybble.dialects.lowbit.formats.errors import FormatError
from nybble.dialects.lowbit.formats.fitting import ideal_scale, value_range
from nybble.dialects.lowbit.formats.ggml_rounding import ROUNDINGS
from nybble.dialects.lowbit.formats.nearest import code_values, nearest_codes, ratio
from nybble.dialects.lowbit.formats.numeric import round_to
from nybble.dialects.lowbit.formats.scale import (
    IntegerZero,
    ScaleTree,
    StoredMin,
    SuperScale,
)
from nybble.dialects.lowbit.formats.structure import LowRank, NOfM, Outliers
from nybble.dialects.lowbit.formats.table_element import Grid
from nybble.dialects.lowbit.formats.trees import can_be_negative, store_tree
from nybble.dialects.lowbit.formats.weight import TreeParts, Weight
from nybble.dialects.numpy_ref.quantize import dequantize_rows, quantize_rows

_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)


def quantize(description: Description, values: F32) -> Weight:
    """f32 [rows, cols] to the canonical form of this format.

    Raises FormatError for other arrays, numbers that are not finite or do not fit, a shape the
    format forbids, or a family whose quantizer is not written.
    """
    check_matrix(values)
    rows, cols = values.shape
    description.check_shape((rows, cols))
    _check_quantizable(description)
    if isinstance(description.sparsity, NOfM):
        values = prune(description.sparsity, values)
    if description.is_plain:
        return plain_weight(description, round_to(description.element.spell, values))
    check_magnitude(values)
    if cols == 0:
        return empty_weight(description, rows)
    size = description.group_size(cols)
    groups = values.reshape(rows, cols // size, size)
    if isinstance(description.element, TwoDigits):
        return _round_to_digits(description, groups)
    return attach(description, _quantize_groups(description, groups), values)


def _check_quantizable(description: Description) -> None:
    sparse = description.sparsity
    unwritten = [
        correction.spell
        for correction in description.corrections
        if not isinstance(correction, Outliers | LowRank)
    ]
    reason = f"correction {unwritten[0]}" if unwritten else None
    if isinstance(description.element, Grid | EntropyCoded):
        reason = f"element {description.element.spell}"
    elif description.grouping.axis != "cols":
        reason = "grouping across rows"
    elif sparse is not None and not (isinstance(sparse, NOfM) and sparse.block == 1):
        reason = f"sparsity {sparse.spell}"
    if reason is not None:
        raise FormatError(
            f"quantizing to '{description.spec}' is not supported because of its {reason}",
            accepted="dense or NofM formats with codes, corrected by outliers or low rank at most",
        )


def _round_to_digits(description: Description, groups: F32) -> Weight:
    """Multiples of the largest magnitude / 32512, with the arithmetic of `numpy_ref.quantize`."""
    rows, count, size = groups.shape
    rounded = quantize_rows(groups.reshape(rows, count * size), size, digits=2)
    nothing = np.zeros((rows, 0), np.float32)
    return Weight(description.spec, None, nothing, values=dequantize_rows(rounded.q, rounded.s))


def _quantize_groups(description: Description, groups: F32) -> Weight:
    if description.spec in ROUNDINGS:
        return _round_like_ggml(description, groups)
    if isinstance(description.zero, StoredMin):
        return _fit_minimum(description, description.zero, groups)
    if isinstance(description.zero, IntegerZero):
        return _fit_integer_zero(description, description.zero, groups)
    return _fit_centred(description, groups)


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
    if description.scale is None:
        return unit_scale(description, *ideal.shape), None
    unit = np.float32(description.element.unit)
    stored, parts = store_tree(description.scale, description.grouping.count, ideal / unit)
    if parts is not None and unit != 1:
        parts = TreeParts(parts.base * unit, parts.codes)
    return stored * unit, parts


def _round_like_ggml(description: Description, groups: F32) -> Weight:
    codes, ideal, minimum = ROUNDINGS[description.spec](groups)
    scale, _ = _stored_scale(description, ideal[:, :, 0])
    weight = _weight(description, groups, codes, scale)
    if minimum is None or not isinstance(description.zero, StoredMin):
        return weight
    zero, _ = store_tree(description.zero.tree, description.grouping.count, minimum[:, :, 0])
    return replace(weight, zero=zero)


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


def _factors(tree: ScaleTree | None) -> tuple[float, ...]:
    """What ideal ranges are multiplied by to find the one with the least error.

    Formats of one level take the extremes as they are (round to nearest, as everybody's baseline
    does); those with sub-scales are searched, as ggml does for its K-quants.
    """
    return _SHRINKS if isinstance(tree, SuperScale) else (1.0,)


def _least(count: int, error: Callable[[int], F32], like: F32) -> npt.NDArray[np.intp]:
    """Which of `count` candidates has the least error, for each group of f32 [rows, groups]."""
    if count == 1:
        return np.zeros(like.shape, np.intp)
    return np.argmin([error(index) for index in range(count)], axis=0)


def _pick(best: npt.NDArray[np.intp], candidates: list[F32]) -> F32:
    """candidates[best[r, g]][r, g]."""
    return np.take_along_axis(np.stack(candidates), best[None], axis=0)[0]


def _fit_minimum(description: Description, zero: StoredMin, groups: F32) -> Weight:
    low, high = (np.float32(end) for end in value_range(description.element))
    bottom, top = groups.min(axis=-1), groups.max(axis=-1)
    if not can_be_negative(zero.tree):
        bottom = np.minimum(bottom, 0) if zero.negated else np.maximum(bottom, 0)
    top = np.maximum(top, bottom)
    centre, half = (bottom + top) / 2, (top - bottom) / 2
    shrunk = [half * np.float32(factor) for factor in _factors(description.scale)]
    scales = [2 * size / (high - low) for size in shrunk]

    def error(index: int) -> F32:
        zeros = centre - shrunk[index] - scales[index] * low
        return _error(description, groups, scales[index], zeros)

    best = _least(len(scales), error, bottom)
    scale, scale_parts = _stored_scale(description, _pick(best, scales))
    minimum = centre - _pick(best, shrunk) - scale * low
    sign = np.float32(-1 if zero.negated else 1)
    stored, zero_parts = store_tree(zero.tree, description.grouping.count, sign * minimum)
    kept = sign * stored
    weight = _weight(description, groups, _codes(description, groups, scale, kept), scale)
    return replace(weight, zero=kept, scale_parts=scale_parts, zero_parts=zero_parts)


def _fit_integer_zero(description: Description, zero: IntegerZero, groups: F32) -> Weight:
    bottom = np.minimum(groups.min(axis=-1), 0)
    top = np.maximum(groups.max(axis=-1), 0)
    scale, parts = _stored_scale(
        description, (top - bottom) / np.float32(2**description.element.bits - 1)
    )
    levels = np.rint(ratio(-bottom, scale))
    zero_codes = np.clip(levels, 0, 2**zero.width - 1).astype(np.uint8)
    kept = integer_zero(scale, zero_codes)
    codes = _codes(description, groups, scale, kept)
    weight = _weight(description, groups, codes, scale)
    return replace(weight, zero=kept, zero_codes=zero_codes, scale_parts=parts)


def _fit_centred(description: Description, groups: F32) -> Weight:
    """Without a zero: of the tables and ranges each group takes the ones with the least error."""
    element = description.element
    choices, factors = range(element.choices), _factors(description.scale)
    ideals = [ideal_scale(element, description.scale, groups, choice) for choice in choices]
    scales = [ideal * np.float32(factor) for ideal in ideals for factor in factors]

    def error(index: int) -> F32:
        return _error(description, groups, scales[index], choice=index // len(factors))

    best = _least(len(scales), error, scales[0])
    selector = (best // len(factors)).astype(np.uint8)
    scale, parts = _stored_scale(description, _pick(best, scales))
    codes = _codes(description, groups, scale)
    for choice in choices[1:]:
        other = _codes(description, groups, scale, choice=choice)
        codes = np.where((selector == choice)[:, :, None], other, codes)
    weight = _weight(description, groups, codes, scale)
    return replace(weight, scale_parts=parts, selector=selector if len(choices) > 1 else None)
