"""Quantizers of the ggml types that must round exactly as ggml's reference does.

Source: quantize_row_*_ref in ggml-quants.c. Codes come from the scale before it is rounded to its
stored type. Each returns codes u8, scale f32 [.., 1] and minimum f32 [.., 1] or None of groups
f32 [rows, groups, size].
"""

from collections.abc import Callable

import numpy as np

from nybble.dialects.lowbit.formats.arrays import F32, U8

Rounded = tuple[U8, F32, F32 | None]


def inverse(scale: F32) -> F32:
    """1 / scale; 0 where that is not finite (a zero or denormal scale)."""
    with np.errstate(divide="ignore", over="ignore"):
        result = np.float32(1) / scale
    return np.where(np.isfinite(result), result, np.float32(0))


def signed_extreme(groups: F32) -> F32:
    """The number of largest magnitude of each group, with its sign: f32 [rows, groups, 1]."""
    where = np.abs(groups).argmax(axis=-1, keepdims=True)
    return np.take_along_axis(groups, where, axis=-1)


def _truncate(numbers: F32, top: int) -> U8:
    return np.minimum(np.trunc(numbers).astype(np.uint8), np.uint8(top))


def _away_from_zero(numbers: F32) -> F32:
    magnitude = np.abs(numbers)
    floor = np.floor(magnitude)
    return np.sign(numbers) * (floor + np.floor(2 * (magnitude - floor)))


def _extreme(groups: F32, half: int) -> Rounded:
    scale = signed_extreme(groups) / np.float32(-half)
    codes = _truncate(groups * inverse(scale) + np.float32(half + 0.5), 2 * half - 1)
    return codes, scale, None


def _span(groups: F32, top: int) -> Rounded:
    low = groups.min(axis=-1, keepdims=True)
    scale = (groups.max(axis=-1, keepdims=True) - low) / np.float32(top)
    codes = _truncate((groups - low) * inverse(scale) + np.float32(0.5), top)
    return codes, scale, low


def _magnitude(groups: F32, top: int, zero_point: int) -> Rounded:
    scale = np.abs(groups).max(axis=-1, keepdims=True) / np.float32(top)
    rounded = _away_from_zero(groups * inverse(scale))
    return (rounded + np.float32(zero_point)).astype(np.uint8), scale, None


def _signs(groups: F32) -> Rounded:
    total = np.zeros(groups.shape[:2], np.float32)
    for column in np.moveaxis(np.abs(groups), -1, 0):  # one after the other, as ggml adds
        total += column
    scale = total[..., None] / np.float32(groups.shape[-1])
    return (groups >= 0).astype(np.uint8), scale, None


ROUNDINGS: dict[str, Callable[[F32], Rounded]] = {
    "q1_0": _signs,
    "q4_0": lambda groups: _extreme(groups, 8),
    "q5_0": lambda groups: _extreme(groups, 16),
    "q4_1": lambda groups: _span(groups, 15),
    "q5_1": lambda groups: _span(groups, 31),
    "q8_0": lambda groups: _magnitude(groups, 127, 128),
    "tq1_0": lambda groups: _magnitude(groups, 1, 1),
    "tq2_0": lambda groups: _magnitude(groups, 1, 1),
}
