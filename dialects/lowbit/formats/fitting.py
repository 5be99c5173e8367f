"""Ideal scales of groups of weights, before they are rounded to their stored type."""

import numpy as np

from nybble.dialects.lowbit.formats.arrays import F32
from nybble.dialects.lowbit.formats.element import Bipolar, Element, Ternary
from nybble.dialects.lowbit.formats.ggml_rounding import signed_extreme
from nybble.dialects.lowbit.formats.nearest import code_range
from nybble.dialects.lowbit.formats.scale import FloatScale, ScaleTree
from nybble.dialects.lowbit.formats.trees import can_be_negative


def value_range(element: Element, choice: int = 0) -> tuple[float, float]:
    """Smallest and largest T(c) that a quantizer uses."""
    table = element.table
    if table is None:
        low, high = code_range(element)
        return float(low - element.zero_point), float(high - element.zero_point)
    values = table[choice] if table.ndim == 2 else table
    finite = values[np.isfinite(values)]
    return float(finite.min()), float(finite.max())


def ideal_scale(
    element: Element, tree: ScaleTree | None, groups: F32, choice: int = 0, ternary: str = "twn"
) -> F32:
    """S of each group of f32 [rows, groups, size] for a format without a zero: f32 [rows, groups].

    choice: which table of an element that has several. ternary: see `Rounding`.
    Exact for groups that the format represents; positive where the tree cannot be negative.
    """
    magnitude = np.abs(groups)
    if isinstance(element, Ternary):
        return _ternary_scale(magnitude) if ternary == "twn" else _mean(magnitude)
    if isinstance(element, Bipolar) and element.width == 1:
        return _mean(magnitude)
    low, high = value_range(element, choice)
    if isinstance(tree, FloatScale) and tree.dtype == "e8m0":
        return _shared_exponent(magnitude.max(axis=-1), min(high, -low) or max(high, -low))
    if low == -high:
        return magnitude.max(axis=-1) / np.float32(high)
    if tree is not None and can_be_negative(tree):
        return signed_extreme(groups)[:, :, 0] / np.float32(low if -low > high else high)
    scales = np.zeros(groups.shape[:2], np.float32)
    if high > 0:
        scales = np.maximum(groups, 0).max(axis=-1) / np.float32(high)
    if low < 0:
        scales = np.maximum(scales, np.minimum(groups, 0).min(axis=-1) / np.float32(low))
    return scales


def _mean(magnitude: F32) -> F32:
    return magnitude.mean(axis=-1, dtype=np.float64).astype(np.float32)


def _ternary_scale(magnitude: F32) -> F32:
    """Mean of the magnitudes above 0.7 of the mean: Ternary Weight Networks, arXiv 1605.04711."""
    above = magnitude > np.float32(0.7) * magnitude.mean(axis=-1, keepdims=True)
    total = np.where(above, magnitude, 0).sum(axis=-1, dtype=np.float64)
    return (total / np.maximum(above.sum(axis=-1), 1)).astype(np.float32)


def _shared_exponent(extreme: F32, largest: float) -> F32:
    """2 ** (floor(log2 extreme) - floor(log2 largest)): OCP Microscaling Formats 1.0, 6.3."""
    _, power = np.frexp(extreme)
    _, top = np.frexp(largest)
    scale = np.ldexp(np.float32(1), power - int(top))
    return np.where(extreme > 0, scale, np.float32(0)).astype(np.float32)
