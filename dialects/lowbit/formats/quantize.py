"""Rounding a matrix to any format: transforms, pruning, outliers, groups, what is added."""

from dataclasses import replace

import numpy as np

from nybble.dialects.lowbit.formats.arrays import F32, check_magnitude, check_matrix, check_type
from nybble.dialects.lowbit.formats.assembly import empty_weight, plain_weight, pruned_codes
from nybble.dialects.lowbit.formats.corrections import (
    Fit,
    attach,
    outlier_places,
    replace_unused,
)
from nybble.dialects.lowbit.formats.description import Description
from nybble.dialects.lowbit.formats.element import EntropyCoded, TwoDigits
from nybble.dialects.lowbit.formats.errors import FormatError
from nybble.dialects.lowbit.formats.group_fit import quantize_groups
from nybble.dialects.lowbit.formats.numeric import round_to
from nybble.dialects.lowbit.formats.rounding import Rounding
from nybble.dialects.lowbit.formats.sparse_index import choose
from nybble.dialects.lowbit.formats.structure import Outliers, Rotation, Smoothing
from nybble.dialects.lowbit.formats.table_element import Grid
from nybble.dialects.lowbit.formats.transforms import rotate, smoothing_vector
from nybble.dialects.lowbit.formats.weight import Mask, Weight
from nybble.dialects.numpy_ref.quantize import dequantize_rows, quantize_rows


def quantize(description: Description, values: F32, rounding: Rounding) -> Weight:
    """f32 [rows, cols] to the canonical form of this format.

    Raises FormatError for other arrays, numbers that are not finite (DFloat11 takes them) or do
    not fit, a shape the format forbids, or a family whose quantizer is not written.
    """
    check_type(values)
    rows, cols = values.shape
    description.check_shape((rows, cols))
    if isinstance(description.element, EntropyCoded):
        return plain_weight(description, round_to("bf16", values))
    check_matrix(values)
    _check_quantizable(description)
    if not values.size:
        return empty_weight(description, rows, cols)
    if not description.is_plain:
        check_magnitude(values)
    if isinstance(description.element, TwoDigits):
        return _round_to_digits(description, values)
    smoothing, rotation, values = _to_basis(description, values, rounding)
    kept = None if description.sparsity is None else choose(description.sparsity, values)
    if kept is not None:
        values = np.where(kept, values, np.float32(0))
    weight, places = _round(description, values, kept, rounding)
    weight = replace(weight, kept=kept, smoothing=smoothing, rotation=rotation)
    return attach(description, weight, values, places)


def _check_quantizable(description: Description) -> None:
    if isinstance(description.element, Grid):
        raise FormatError(
            f"quantizing to '{description.spec}' is not supported because of its element "
            f"{description.element.spell}",
            accepted="formats with a code per weight, and plain floats",
        )


def _round_to_digits(description: Description, values: F32) -> Weight:
    """Multiples of the largest magnitude / 32512, with the arithmetic of `numpy_ref.quantize`."""
    size = description.group_size(values.shape[1])
    rounded = quantize_rows(values, size, digits=2)
    nothing = np.zeros((len(values), 0), np.float32)
    return Weight(description.spec, None, nothing, values=dequantize_rows(rounded.q, rounded.s))


def _to_basis(
    description: Description, values: F32, rounding: Rounding
) -> tuple[F32 | None, int | None, F32]:
    """The smoothing vector, the rotation, and the matrix that codes are made for."""
    smoothing, rotation = None, None
    for correction in description.corrections:
        if isinstance(correction, Smoothing):
            smoothing = smoothing_vector(values, rounding.activations)
            values = values / smoothing
        elif isinstance(correction, Rotation):
            rotation = correction.size
            values = rotate(values, rotation)
    return smoothing, rotation, values


def _round(
    description: Description, values: F32, kept: Mask | None, rounding: Rounding
) -> tuple[Weight, Mask | None]:
    """The matrix without what is added to it, and the places of outliers, if it has any.

    Scales are fitted to what is left: a pruned weight or an outlier is taken for another weight of
    its group meanwhile.
    """
    if description.is_plain:
        weight = plain_weight(description, round_to(description.element.spell, values))
        return weight, None
    fit = Fit.of(description, values.shape)
    groups = fit.groups(values)
    usable = None if kept is None else fit.groups(kept)
    filled = groups if usable is None else replace_unused(groups, usable)

    def rounded(some: F32) -> Weight:
        return quantize_groups(description, some, rounding)

    for correction in description.corrections:
        if isinstance(correction, Outliers):
            count = values.size * correction.permille // 1000
            far = outlier_places(filled, usable, count, lambda some: rounded(some).dequantize())
            filled = replace_unused(filled, ~far if usable is None else usable & ~far)
            weight = fit.turn(rounded(filled))
            return _drop(description, weight, kept), fit.matrix(far)
    return _drop(description, fit.turn(rounded(filled)), kept), None


def _drop(description: Description, weight: Weight, kept: Mask | None) -> Weight:
    """The weight with the codes of zeros where nothing is kept."""
    if kept is None:
        return weight
    codes = np.where(kept, weight.require_codes(), pruned_codes(description, weight))
    return replace(weight, codes=codes)
