"""Gates of numbers far below 0 are next to nothing, and exact all the same."""

import numpy as np
import pytest

from nybble.dialects.numpy_ref.glu import gelu_tanh, sigmoid, silu

X = np.array([-600.0, -80.0, -40.0, -20.0, -3.0, -1e-300, 0.0, 2.0, 50.0, 800.0])


def power(x):
    """1 / (1 + exp(-x)) by whichever side does not overflow."""
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1.0) / (1.0 + np.exp(-np.abs(x)))


def test_sigmoid_keeps_its_digits():
    np.testing.assert_allclose(sigmoid(X), power(X), rtol=3e-13)
    np.testing.assert_allclose(silu(X), X * power(X), rtol=3e-13)


@pytest.mark.parametrize("x", [-8.0, -3.0, -0.1, 0.5, 4.0])
def test_gelu_is_its_tanh_form(x):
    """As the paper writes it, which is as good as the place where tanh is far from -1."""
    wanted = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(gelu_tanh(np.array(x)), wanted, rtol=1e-12, atol=1e-15)


def test_gelu_far_below_0_is_not_0():
    found = float(gelu_tanh(np.array(-6.0)))
    z = 2 * np.sqrt(2 / np.pi) * (-6 + 0.044715 * -216)
    assert found == pytest.approx(-6 * np.exp(z), rel=1e-10)
