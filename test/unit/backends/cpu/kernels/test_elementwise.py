"""Gated units, sums, bias and last row against the references."""

import numpy as np
import pytest

from nybble.backends.cpu.kernels.elementwise import Add, Glu
from nybble.backends.cpu.kernels.last_row import LastRow
from nybble.dialects.numpy_ref import glu


def pair(rng, rows, width):
    return rng.standard_normal((2, rows, width)).astype(np.float32) * 4


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "sigmoid"])
@pytest.mark.parametrize(("rows", "width"), [(1, 64), (1, 77), (5, 33)])
def test_glu(run, rng, activation, rows, width):
    gate, up = pair(rng, rows, width)
    want = glu.glu(gate, up, activation).reshape(-1)
    for threads in (1, 3):
        out = run(Glu(width, rows, activation), n=rows, threads=threads, gate=gate, up=up)["out"]
        np.testing.assert_allclose(out[: want.size], want, rtol=2e-6, atol=1e-7)
        assert np.all(np.isnan(out[want.size :]))


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh", "sigmoid"])
def test_glu_far_out(run, activation):
    gate = np.array([-1e30, -200, -90, -20, -0.0, 0.0, 20, 90, 1e30], np.float32)
    out = run(Glu(9, 1, activation), gate=gate, up=np.ones(9, np.float32))["out"]
    np.testing.assert_allclose(out, glu.glu(gate, np.ones(9, np.float32), activation), atol=1e-7)


def test_glu_of_an_unknown_activation():
    with pytest.raises(ValueError, match="'relu' is not one of silu, gelu_tanh, sigmoid"):
        Glu(8, 1, "relu")
    with pytest.raises(ValueError, match="'relu' is not one of silu, gelu_tanh, sigmoid"):
        glu.glu(np.zeros(1, np.float32), np.zeros(1, np.float32), "relu")


@pytest.mark.parametrize(("rows", "width", "threads"), [(1, 48, 2), (7, 19, 3), (1, 5, 8)])
def test_sums_are_exact(run, rng, rows, width, threads):
    x, y = pair(rng, rows, width)
    out = run(Add(width, rows), n=rows, threads=threads, x=x, y=y)["out"]
    np.testing.assert_array_equal(out[: x.size], glu.add(x, y).reshape(-1))


@pytest.mark.parametrize(("rows", "n"), [(1, 1), (9, 1), (9, 4)])
def test_last_row(run, rng, rows, n):
    x = rng.standard_normal((n, 21)).astype(np.float32)
    out = run(LastRow(21, rows), n=n, threads=2, x=x)["out"]
    np.testing.assert_array_equal(out, x[-1])
