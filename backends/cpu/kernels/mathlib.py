"""Exponential, logarithm, tanh and rounding as vector arithmetic: no call leaves the kernel.

Every function takes f32 scalars or vectors of any width. The stated errors are the largest found
over the argument range by test_mathlib; a NaN argument gives a NaN.
"""

from collections.abc import Sequence

from nybble.backends.building.values import with_element
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, i32
from nybble.dialects.numpy_ref.sample import EXP2_COEFFICIENTS

LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453

_EXP2 = [float(c) for c in reversed(EXP2_COEFFICIENTS)]
ROUNDING_MAGIC = 12582912.0  # 1.5 * 2^23: the sum's low mantissa bits are the nearest integer
_LOWEST_POWER, _HIGHEST_POWER = -125.0, 127.0

# Rational approximation on [-7.905, 7.905], odd numerator and even denominator: Eigen's
# generic_fast_tanh_float (MathFunctionsImpl.h).
_TANH_LIMIT = 7.90531110763549805
_TANH_NUMERATOR = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_DENOMINATOR = (
    1.19825839466702e-06,
    1.18534705686654e-04,
    2.26843463243900e-03,
    4.89352518554385e-03,
)

# log(1 + r) / r^3 on [sqrt(1/2) - 1, sqrt(2) - 1]: Cephes logf (S. Moshier).
_LOG_POLYNOMIAL = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)


# e^r on [-ln(2) / 2, ln(2) / 2]: Cephes expf (S. Moshier), with ln 2 in two parts.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP_MIN, _EXP_MAX = -87.33654475, 88.02969
_EXP_POLYNOMIAL = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)


def polynomial(b: KernelBuilder, x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's rule with fused multiply-add; coefficients from the highest power down."""
    result = b.const(float(coefficients[0]), x.type)
    for coefficient in coefficients[1:]:
        result = b.fma(result, x, b.const(float(coefficient), x.type))
    return result


def exp2_nonpositive(b: KernelBuilder, x: Value) -> Value:
    """2^x for x <= 0 (the exponential of a softmax), within 1.3e-7 relative; 2^-125 below -125."""
    clamped = b.max(b.const(_LOWEST_POWER, x.type), x)
    shifted = clamped + ROUNDING_MAGIC
    rest = clamped - (shifted - ROUNDING_MAGIC)
    mantissa = polynomial(b, rest, _EXP2)
    integers = with_element(x.type, i32)
    exponent = b.bitcast(shifted, integers) << 23
    return b.bitcast(b.bitcast(mantissa, integers) + exponent, x.type)


def exp2(b: KernelBuilder, x: Value) -> Value:
    """2^x within 1.3e-7 relative, with x clamped to [-125, 127]."""
    return exp2_nonpositive(b, b.min(b.const(_HIGHEST_POWER, x.type), x))


def exp(b: KernelBuilder, x: Value) -> Value:
    """e^x within 2 units in the last place; 0 below -87.3, about 1.7e38 above 88.02."""
    clamped = b.min(b.const(_EXP_MAX, x.type), b.max(b.const(_EXP_MIN, x.type), x))
    power = b.roundeven(clamped * LOG2_E)
    rest = b.fma(power, b.const(-_LN2_HIGH, x.type), clamped)
    rest = b.fma(power, b.const(-_LN2_LOW, x.type), rest)
    value = b.fma(polynomial(b, rest, _EXP_POLYNOMIAL), rest * rest, rest) + 1.0
    bits = (round_to_int(b, power) + 127) << 23
    scaled = value * b.bitcast(bits, with_element(x.type, f32))
    return b.select(x < _EXP_MIN, b.const(0.0, x.type), scaled)


def tanh(b: KernelBuilder, x: Value) -> Value:
    """tanh(x) within 4e-7 absolute and 5e-7 relative; one division."""
    limit = b.const(_TANH_LIMIT, x.type)
    clamped = b.max(-limit, b.min(limit, x))
    square = clamped * clamped
    numerator = clamped * polynomial(b, square, _TANH_NUMERATOR)
    return numerator / polynomial(b, square, _TANH_DENOMINATOR)


def log(b: KernelBuilder, x: Value) -> Value:
    """Natural logarithm of a positive normal x or infinity, within 1.5e-7 (1 + |log x|)."""
    integers = with_element(x.type, i32)
    bits = b.bitcast(x, integers)
    half_root = b.const(0x3F3504F3, integers)  # sqrt(1/2): the mantissa lands in [0.707, 1.414)
    power = (bits - half_root) >> 23
    rest = b.bitcast(bits - (power << 23), x.type) - 1.0
    square = rest * rest
    tail = polynomial(b, rest, _LOG_POLYNOMIAL) * rest * square
    tail = b.fma(square, b.const(-0.5, x.type), tail)
    value = b.fma(b.sitofp(power, f32), b.const(LN_2, x.type), rest + tail)
    return b.select(x < float("inf"), value, x)


def round_to_int(b: KernelBuilder, x: Value) -> Value:
    """Nearest integer (halves to even) as i32 for |x| < 2^22; some integer for anything else.

    Never undefined: a NaN or an overflow gives an unspecified value, where `fptosi` is poison.
    """
    integers = with_element(x.type, i32)
    shifted = b.bitcast(x + ROUNDING_MAGIC, integers)
    return shifted - b.bitcast(b.const(ROUNDING_MAGIC, x.type), integers)
