"""Floats of every width as numpy computes with them, and rounding into them.

A decoded value is f32, or f64 of an f64. Packed values have a last axis of their lanes, the lowest
bits first. The 8- and 4-bit formats are those of the OCP specification of MX formats.
"""

from functools import cache

import numpy as np

from nybble.backends.gpu.sim.types import FLOAT, Array, Scalar

_LAYOUT = {"e4m3": (4, 3, 7), "e5m2": (5, 2, 15), "e2m1": (2, 1, 1)}
"""Bits of the exponent and of the mantissa, and the bias."""


@cache
def table(kind: str) -> Array:
    """The values of all codes of a small float: f32[256], or [16] of e2m1."""
    exponent_bits, mantissa_bits, bias = _LAYOUT[kind]
    codes = np.arange(1 << (1 + exponent_bits + mantissa_bits))
    exponent = codes >> mantissa_bits & ((1 << exponent_bits) - 1)
    mantissa = codes & ((1 << mantissa_bits) - 1)
    normal = np.ldexp(1 + mantissa / (1 << mantissa_bits), exponent - bias)
    tiny = np.ldexp(mantissa / (1 << mantissa_bits), 1 - bias)
    values = np.where(exponent > 0, normal, tiny)
    if kind == "e4m3":
        values[(codes & 0x7F) == 0x7F] = np.nan
    if kind == "e5m2":
        values[(codes & 0x7F) == 0x7C] = np.inf
        values[(codes & 0x7F) > 0x7C] = np.nan
    sign = codes >> (exponent_bits + mantissa_bits)
    return np.where(sign == 1, -values, values).astype(np.float32)


@cache
def _halves() -> Array:
    """The values of all f16: faster than numpy's conversion."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def lanes_of(type_: Scalar, raw: Array) -> Array:
    """The elements of packed bits: [n, lanes]; [1, lanes] of a constant."""
    flat = np.ascontiguousarray(np.atleast_1d(raw))
    if type_.kind == "e2m1":
        return np.stack([flat & 15, flat >> 4], axis=-1)
    element = type_.element
    return flat.view(element.dtype).reshape(-1, type_.lanes)


def packed(type_: Scalar, elements: Array) -> Array:
    """The bits of elements [n, lanes]."""
    if type_.kind == "e2m1":
        return (elements[..., 0] | (elements[..., 1] << 4)).astype(np.uint8)
    return np.ascontiguousarray(elements).view(type_.storage).reshape(-1)


def decode(type_: Scalar, raw: Array) -> Array:
    """Values of what a reader of the type gave; packed types gain a last axis."""
    if type_.lanes > 1:
        return decode(type_.element, lanes_of(type_, raw))
    match type_.kind:
        case "f" if type_.bits == 16:
            return _halves().take(raw.view(np.uint16))
        case "f":
            return raw
        case "bf16":
            return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        case "tf32":
            return raw.view(np.float32)
        case _:
            return table(type_.kind)[raw]


def encode(type_: Scalar, values: Array, mode: str = "rn", *, finite: bool = False) -> Array:
    """What a writer of the type takes, rounded. finite: the largest number instead of infinity."""
    if type_.lanes > 1:
        return packed(type_, encode(type_.element, values, mode, finite=finite))
    if type_.kind == "f":
        made = _round_standard(values, FLOAT[type_.bits], mode)
        return _saturate(made) if finite else made
    if type_.kind == "tf32":
        return _round_bits(to_f32_odd(values), 13, mode).view(np.uint32)
    if type_.kind == "bf16":
        made = _round_bits(to_f32_odd(values), 16, mode)
        if finite:
            made = _clamped(made, np.asarray(3.3895314e38, np.float32))
        return (made.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    return _encode_small(type_.kind, values)


def round_f32(values: Array, mode: str = "rn") -> Array:
    """f64 rounded to f32."""
    return _round_standard(values, np.float32, mode)


def to_f32_odd(values: Array) -> Array:
    """f32 nearest zero with its last bit set if that is inexact: rounds again without error."""
    if values.dtype == np.float32:
        return values
    wide = values.astype(np.float64)
    near = _round_standard(wide, np.float32, "rz")
    inexact = near.astype(np.float64) != wide
    return (near.view(np.uint32) | (inexact & ~np.isnan(wide))).astype(np.uint32).view(np.float32)


def fused(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of f32 with one rounding, in f64 made odd where it is inexact: f64."""
    product = a.astype(np.float64) * b
    total = product + c
    doubtful = (np.atleast_1d(total).view(np.uint64) & np.uint64(0x1FFFFFFF)) == 0x10000000
    if not doubtful.any():
        return total
    return _odd_sum(np.atleast_1d(product), np.atleast_1d(c.astype(np.float64)))


def _odd_sum(a: Array, b: Array) -> Array:
    """a + b of f64, moved towards what was cut off by making the last bit odd."""
    total = a + b
    part = total - a
    lost = (a - (total - part)) + (b - part)
    bits = total.view(np.int64)
    even = (bits & 1) == 0
    step = np.where((lost > 0) == (total > 0), 1, -1)
    fix = even & (lost != 0) & np.isfinite(total)
    return np.where(fix, bits + step, bits).view(np.float64)


def flush(values: Array) -> Array:
    """f32 with denormal numbers as zeros of their sign."""
    tiny = np.abs(values) < np.float32(1.1754944e-38)
    return np.where(tiny, np.copysign(np.float32(0), values), values)


def minimum(a: Array, b: Array, *, nan: bool = False, largest: bool = False) -> Array:
    """min or max as IEEE 754-2019 has minimumNumber; nan: minimum. -0 is less than +0."""
    if nan:
        made = np.maximum(a, b) if largest else np.minimum(a, b)
    else:
        made = np.fmax(a, b) if largest else np.fmin(a, b)
    zero = (made == 0) & (a == b)
    if zero.any():
        sign = np.signbit(a) & np.signbit(b) if largest else np.signbit(a) | np.signbit(b)
        signed = np.where(sign, np.asarray(-0.0, made.dtype), np.asarray(0.0, made.dtype))
        made = np.where(zero, signed, made)
    return made


def _round_standard(values: Array, dtype: type, mode: str) -> Array:
    near = values.astype(dtype)
    if mode in ("rn", "rna") or values.dtype == dtype:
        return near
    back = near.astype(np.float64)
    exact = values.astype(np.float64)
    down = np.nextafter(near, dtype(-np.inf))
    up = np.nextafter(near, dtype(np.inf))
    if mode == "rz":
        return np.where(np.abs(back) > np.abs(exact), np.where(back > 0, down, up), near)
    if mode == "rm":
        return np.where(back > exact, down, near)
    return np.where(back < exact, up, near)


def _round_bits(values: Array, drop: int, mode: str) -> Array:
    """f32 without its last bits."""
    bits = np.ascontiguousarray(values).view(np.uint32).astype(np.uint64)
    half = (np.uint64(1) << np.uint64(drop - 1)) - np.uint64(1)
    last = (bits >> np.uint64(drop)) & np.uint64(1)
    add = {"rn": half + last, "rna": half + np.uint64(1), "rz": np.uint64(0)}[mode]
    mask = np.uint64(0xFFFFFFFF) << np.uint64(drop)
    made = ((bits + add) & mask & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return np.where(np.isnan(values), np.uint32(0x7FC00000), made).view(np.float32)


def _saturate(values: Array) -> Array:
    return _clamped(values, values.dtype.type(np.finfo(values.dtype).max))


def _clamped(values: Array, limit: Array) -> Array:
    return np.where(np.isnan(values), values, np.clip(values, -limit, limit))


def _encode_small(kind: str, values: Array) -> Array:
    """Codes of a small float: to nearest even, saturating; NaN where there is one."""
    exponent_bits, mantissa_bits, bias = _LAYOUT[kind]
    positive = table(kind)[: 1 << (exponent_bits + mantissa_bits)]
    finite = positive[np.isfinite(positive)]
    missing = np.isnan(values)
    size = np.minimum(np.where(missing, 0, np.abs(values)).astype(np.float64), finite[-1])
    quantum = np.ldexp(1.0, np.maximum(np.frexp(size)[1] - 1, 1 - bias) - mantissa_bits)
    code = np.searchsorted(finite, np.rint(size / quantum) * quantum)
    code = np.where(missing, len(positive) - 1, code).astype(np.uint8)
    sign = np.signbit(values).astype(np.uint8) << np.uint8(exponent_bits + mantissa_bits)
    return code | np.where(missing, np.uint8(0), sign)
