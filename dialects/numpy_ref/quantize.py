"""Symmetric int8 quantization of activations in groups along a row."""

from typing import NamedTuple

import numpy as np

from nybble.dialects.numpy_ref.arrays import F32, I8, I32

SMALLEST_AMAX = np.float32(1e-30)
"""A group whose largest magnitude is below this is stored as zeros: 127 / amax stays finite."""


class Quantized(NamedTuple):
    """Codes q i8 [n, k], scales s f32 [n, k / group], sums z i32 [n, k / group] of the codes."""

    q: I8
    s: F32
    z: I32


def quantize_rows(x: F32, group: int) -> Quantized:
    """Quantize x [n, k] with `s = amax / 127`, `q = roundeven(x * (127 / amax))`, all in f32.

    A group with an infinity or a NaN gets a scale that is not finite; its q and z are unspecified.
    Raises ValueError if k is not a multiple of `group`.
    """
    rows, width = x.shape
    if width % group:
        raise ValueError(f"row length {width} is not a multiple of the group size {group}")
    groups = x.astype(np.float32).reshape(rows, width // group, group)
    amax = np.max(np.abs(groups), axis=2)
    kept = ~(amax < SMALLEST_AMAX)
    with np.errstate(all="ignore"):
        scale = np.where(kept, amax / np.float32(127), np.float32(0)).astype(np.float32)
        inverse = np.where(kept, np.float32(127) / amax, np.float32(0)).astype(np.float32)
        scaled = np.where(np.isfinite(amax)[..., None], groups * inverse[..., None], np.float32(0))
    codes = np.rint(scaled).astype(np.int8)
    sums = codes.sum(axis=2, dtype=np.int32)
    return Quantized(codes.reshape(rows, width), scale, sums)


def dequantize_rows(codes: I8, scale: F32) -> F32:
    """Return q * s as f32 [n, k] for codes [n, k] and scale [n, k / group]."""
    group = codes.shape[1] // scale.shape[1]
    return (codes.astype(np.float32) * np.repeat(scale, group, axis=1)).astype(np.float32)
