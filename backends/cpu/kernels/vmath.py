"""Elementary functions as vector arithmetic: no call leaves the kernel.

Each takes f32 scalars or vectors. `exp` is Cody-Waite reduction by ln 2 and the degree-6 polynomial
of Cephes (S. Moshier, expf.c), within 2 units in the last place of f32.
"""

from xdsl.dialects.builtin import f32

from nybble.backends.cpu.kernels.builder import KernelBuilder
from nybble.backends.cpu.kernels.values import Value, with_element

_LOG2_E = 1.44269504088896341
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


def exp(b: KernelBuilder, x: Value) -> Value:
    """e**x; 0 below -87.3, about 1.7e38 (no infinity) above 88.02; NaN stays NaN."""

    def constant(number: float) -> Value:
        return b.const(number, x.type)

    clamped = b.min(constant(_EXP_MAX), b.max(constant(_EXP_MIN), x))
    power = b.roundeven(clamped * _LOG2_E)
    r = b.fma(power, constant(-_LN2_HIGH), clamped)
    r = b.fma(power, constant(-_LN2_LOW), r)
    poly = constant(_EXP_POLYNOMIAL[0])
    for coefficient in _EXP_POLYNOMIAL[1:]:
        poly = b.fma(poly, r, constant(coefficient))
    value = b.fma(poly, r * r, r) + 1.0
    bits = (b.fptosi(power) + 127) << 23
    scaled = value * b.bitcast(bits, with_element(x.type, f32))
    return b.select(x < _EXP_MIN, constant(0.0), scaled)


def sigmoid(b: KernelBuilder, x: Value) -> Value:
    """1 / (1 + e**-x)."""
    return 1.0 / (exp(b, -x) + 1.0)


def silu(b: KernelBuilder, x: Value) -> Value:
    """x * sigmoid(x)."""
    return x / (exp(b, -x) + 1.0)


def gelu_tanh(b: KernelBuilder, x: Value) -> Value:
    """0.5 x (1 + tanh(a)), a = sqrt(2/pi) (x + 0.044715 x^3), which is x * sigmoid(2 a)."""
    inner = b.fma(x * x * x, b.const(0.044715, x.type), x)
    return x / (exp(b, inner * -1.5957691216057308) + 1.0)
