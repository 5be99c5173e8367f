"""Symmetric quantization of activations in groups along a row, in one or two 8-bit digits."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nybble.dialects.numpy_ref.arrays import F32, I8, I32

SMALLEST_AMAX = np.float32(1e-30)
"""A group whose largest magnitude is below this is stored as zeros: 127 / amax stays finite."""

GROUPS = (16, 32, 64, 128, 256)
"""How many columns of an activation may share a scale."""

LARGEST = {1: 127, 2: 127 * 256}
"""The largest integer by number of digits."""


class Quantized(NamedTuple):
    """Codes q, scales s f32 [n, k / group], sums z i32 [n, k / group] of the integers.

    q is i8 [n, k], the integers; or, in two digits, i8 [2, n, k]: 256 * q[0] + q[1].
    """

    q: I8
    s: F32
    z: I32


def activation_group(weights: int) -> int | None:
    """The largest of GROUPS that divides the group of a weight; None if none does."""
    return next((group for group in reversed(GROUPS) if weights % group == 0), None)


def quantize_rows(x: F32, group: int, digits: int = 1) -> Quantized:
    """Quantize x [n, k] with `s = amax / L`, integers `roundeven(x * (L / amax))`, all in f32.

    L is LARGEST[digits]. A group with an infinity or a NaN gets a scale that is not finite; its q
    and z are unspecified. Raises ValueError if k is not a multiple of `group`.
    """
    rows, width = x.shape
    if width % group:
        raise ValueError(f"row length {width} is not a multiple of the group size {group}")
    largest = np.float32(LARGEST[digits])
    groups = x.astype(np.float32).reshape(rows, width // group, group)
    amax = np.max(np.abs(groups), axis=2, initial=0)
    kept = ~(amax < SMALLEST_AMAX)
    with np.errstate(all="ignore"):
        scale = np.where(kept, amax / largest, np.float32(0)).astype(np.float32)
        inverse = np.where(kept, largest / amax, np.float32(0)).astype(np.float32)
        scaled = np.where(np.isfinite(amax)[..., None], groups * inverse[..., None], np.float32(0))
    integers = np.rint(scaled).astype(np.int32)
    sums = integers.sum(axis=2, dtype=np.int32)
    return Quantized(_digits(integers.reshape(rows, width), digits), scale, sums)


def _digits(integers: I32, digits: int) -> I8:
    """The codes; a high digit is rounded, so that the low one fits a signed byte."""
    if digits == 1:
        return integers.astype(np.int8)
    high = (integers + 128) >> 8
    return np.stack([high, integers - 256 * high]).astype(np.int8)


def integers_of(codes: I8) -> I32:
    """The integers i32 [n, k] of codes [n, k] or [2, n, k]."""
    wide = codes.astype(np.int32)
    return wide if codes.ndim == 2 else 256 * wide[0] + wide[1]


def dequantize_rows(codes: I8, scale: F32) -> F32:
    """The integers times their scales, f32 [n, k], for scale [n, k / group]."""
    wide = integers_of(codes)
    group = wide.shape[1] // scale.shape[1]
    return (wide.astype(np.float32) * np.repeat(scale, group, axis=1)).astype(np.float32)


LANES, PARTIAL = 16, 8
"""How many sums of a row's magnitudes are begun side by side: of lanes, and one after another."""


def bipolar_rows(x: F32, planes: int) -> tuple[npt.NDArray[np.int64], F32]:
    """Codes c [n, k] and scales s [n] of x: `s * (2 c - L)` with `L = 2**planes - 1`, all in f32.

    s is amax / L, or the mean magnitude for a single plane; the sum for that is made in the order
    in which hardware makes it, LANES * PARTIAL sums that are added at the end. A row with an
    infinity or a NaN has a scale that is not finite and codes of zeros.
    """
    cols = x.shape[1]
    magnitude, most = np.abs(x.astype(np.float32)), np.float32(2**planes - 1)
    with np.errstate(all="ignore"):
        if planes == 1:
            size = _total(magnitude) * np.float32(1 / cols)
        else:
            size = np.max(magnitude, axis=1, initial=0)
        kept = ~(size < SMALLEST_AMAX)
        scale = np.where(kept, size / most, np.float32(0)).astype(np.float32)
        inverse = np.where(kept, most / size, np.float32(0)).astype(np.float32)
        scaled = np.where(np.isfinite(size)[:, None], x * inverse[:, None], np.float32(0))
        places = np.rint((scaled + most) * np.float32(0.5))
    return np.clip(places, 0, most).astype(np.int64), scale


def bipolar_values(x: F32, planes: int) -> F32:
    """What rows f32 [n, k] are rounded to by `bipolar_rows`, f32 [n, k]."""
    codes, scale = bipolar_rows(x, planes)
    return ((2 * codes - (2**planes - 1)) * scale[:, None]).astype(np.float32)


def _total(magnitude: F32) -> F32:
    """f32 [n] sums of rows [n, k], in the order of `bipolar_rows`."""
    rows, cols = magnitude.shape
    step = LANES * PARTIAL
    padded = np.zeros((rows, -(-max(cols, 1) // step) * step), np.float32)
    padded[:, :cols] = magnitude
    sums = np.cumsum(padded.reshape(rows, -1, PARTIAL, LANES), axis=1, dtype=np.float32)[:, -1]
    lanes = np.cumsum(sums, axis=1, dtype=np.float32)[:, -1]
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]
