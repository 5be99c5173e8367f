"""Conversion between f32 and the stored types of scales and plain weights."""

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.arrays import F32, U8
from nybble.dialects.lowbit.formats.errors import FormatError

E8M0_BIAS = 127
# Magnitudes from which rounding to nearest leaves the type; all of f32 fits f32 and e8m0.
_OVERFLOW = {"f16": 65520.0, "bf16": (2 - 2.0**-8) * 2.0**127, "e4m3": 464.0}


def _e4m3_values() -> npt.NDArray[np.float64]:
    """Value of each byte as an unsigned e4m3: the sign is ignored and 0x7f is 0, as in ggml."""
    code = np.arange(256)
    field, fraction = (code >> 3) & 15, code & 7
    values = (np.where(field == 0, 0.0, 1.0) + fraction / 8) * 2.0 ** (np.maximum(field, 1) - 7)
    values[0x7F] = 0.0
    return values


def decode_floats(dtype: str, raw: U8, unit: float = 1.0) -> F32:
    """Stored bytes to f32, times `unit`.

    raw: u8 [n, count * bytes of one]. Returns f32 [n, count]. An e8m0 of 255 is 2**128 (as ggml
    reads it), not NaN.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if dtype == "e8m0":
            wide = np.ldexp(np.float64(unit), raw.astype(np.int32) - E8M0_BIAS)
            return wide.astype(np.float32)
        values = _as_f32(dtype, raw)
        return values if unit == 1 else values * np.float32(unit)


def _as_f32(dtype: str, raw: U8) -> F32:
    if dtype == "f32":
        return raw.view("<f4").astype(np.float32)
    if dtype == "f16":
        return raw.view("<f2").astype(np.float32)
    if dtype == "bf16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return _e4m3_values()[raw].astype(np.float32)


def encode_floats(dtype: str, values: F32) -> U8:
    """f32 [n, count] to stored bytes u8 [n, count * bytes of one], to nearest (ties to even).

    e8m0 keeps the exponent only. A finite number too large for the type raises FormatError.
    """
    _check_range(dtype, values)
    with np.errstate(invalid="ignore"):
        encoded = _from_f32(dtype, values)
    return np.ascontiguousarray(encoded).view(np.uint8)


def _from_f32(dtype: str, values: F32) -> npt.NDArray[np.generic]:
    if dtype == "f32":
        return values.astype("<f4")
    if dtype == "f16":
        return values.astype("<f2")
    if dtype == "bf16":
        return _round_bf16(values)
    return _exponent(values) if dtype == "e8m0" else _nearest_e4m3(values)


def round_to(dtype: str, values: F32) -> F32:
    """f32 [n, count] as the stored type represents it."""
    return decode_floats(dtype, encode_floats(dtype, values))


def _check_range(dtype: str, values: F32) -> None:
    limit = _OVERFLOW.get(dtype)
    if limit is None:
        return
    too_large = np.isfinite(values) & (np.abs(values) >= np.float32(limit))
    if too_large.any():
        worst = np.abs(values[too_large]).max()
        raise FormatError(f"{worst:.6g} does not fit {dtype}", accepted=f"less than {limit:.6g}")


def _round_bf16(values: F32) -> npt.NDArray[np.uint16]:
    """To nearest; a NaN that bf16 has keeps its payload, any other becomes a quiet one."""
    bits = values.view(np.uint32)
    quiet = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x00400000)
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    bits = np.where(is_nan & (bits & np.uint32(0xFFFF) != 0), quiet, bits)
    rounded = bits.astype(np.uint64) + 0x7FFF + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint64(16)).astype(np.uint16)


def _exponent(values: F32) -> U8:
    finite = np.isfinite(values)
    _, power = np.frexp(np.where(finite, values, 1.0))
    code = np.where(values > 0, np.clip(power - 1 + E8M0_BIAS, 0, 254), 0)
    return np.where(finite, code, 255).astype(np.uint8)


def _nearest_e4m3(values: F32) -> U8:
    table = _e4m3_values()[:0x7F]
    middle = (table[1:] + table[:-1]) / 2
    below, above = (np.searchsorted(middle, values, side=side) for side in ("left", "right"))
    # The two differ at a tie, where the even code is right.
    return np.where(below % 2 == 0, below, above).astype(np.uint8)
