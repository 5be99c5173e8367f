"""The gates of gated linear units as vector arithmetic on f32 scalars or vectors."""

from collections.abc import Callable

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value
from nybble.backends.cpu.kernels.mathlib import exp


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


GATES: dict[str, Callable[[KernelBuilder, Value], Value]] = {
    "silu": silu,
    "gelu_tanh": gelu_tanh,
    "sigmoid": sigmoid,
}
"""By the name that `fused.glu` has for each."""
