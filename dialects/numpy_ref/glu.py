"""Gated linear units and the other elementwise steps of a decoder layer."""

import numpy as np

from nybble.dialects.numpy_ref.arrays import F32, F64


def silu(x: F64) -> F64:
    """Return x * sigmoid(x), without overflow for large negative x."""
    return x * sigmoid(x)


def sigmoid(x: F64) -> F64:
    """Return 1 / (1 + exp(-x)), without overflow and exact to a few bits where it is next to 0."""
    return np.exp(-np.logaddexp(0.0, -x))


def gelu_tanh(x: F64) -> F64:
    """Return the tanh form of GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415).

    `(1 + tanh(z)) / 2` is `sigmoid(2 z)`, which loses nothing where tanh is next to -1.
    """
    return x * sigmoid(2.0 * np.sqrt(2.0 / np.pi) * (x + 0.044715 * x * x * x))


ACTIVATIONS = {"silu": silu, "gelu_tanh": gelu_tanh, "sigmoid": sigmoid}


def glu(gate: F32, up: F32, activation: str = "silu") -> F32:
    """Return activation(gate) * up, elementwise on f32 arrays of one shape, computed in f64."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation '{activation}' is not one of {', '.join(ACTIVATIONS)}")
    return (ACTIVATIONS[activation](gate.astype(np.float64)) * up.astype(np.float64)).astype(
        np.float32
    )


def add(x: F32, y: F32) -> F32:
    """Return x + y in f32; y is x's shape (a residual) or its last dimension (a bias)."""
    return (x + y).astype(np.float32)
