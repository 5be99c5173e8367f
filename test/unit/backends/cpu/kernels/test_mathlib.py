"""The elementary functions against numpy in f64, over their whole range of arguments."""

from dataclasses import dataclass

import numpy as np
import pytest

from nybble.backends.cpu.kernels import mathlib
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, f32, i32

SIZE = 1 << 16


@dataclass(frozen=True)
class Apply:
    """x f32 [SIZE] -> y = function(x)."""

    function: str

    @property
    def buffers(self):
        out = i32 if self.function == "round_to_int" else f32
        return [BufferSpec("x", SIZE, f32), BufferSpec("y", SIZE, out)]

    def build(self, name):
        b = KernelBuilder(name, self.buffers)
        x, y = b.buffers
        with b.for_(0, SIZE, 16) as loop:
            y.vstore(getattr(mathlib, self.function)(b, x.vload(loop.iv, 16)), loop.iv)
        return b.finish()


def sweep(low, high):
    return np.linspace(low, high, SIZE).astype(np.float32)


@pytest.mark.parametrize(
    ("function", "low", "high", "bound"),
    [("exp2_nonpositive", -125, 0, 1.3e-7), ("exp2", -125, 127, 1.3e-7), ("tanh", 0.01, 12, 5e-7)],
)
def test_relative_error(run, function, low, high, bound):
    x = sweep(low, high)
    want = {"tanh": np.tanh}.get(function, np.exp2)(x.astype(np.float64))
    got = run(Apply(function), x=x)["y"]
    assert np.max(np.abs(got / want - 1)) <= bound


def test_tanh_near_zero_and_odd(run):
    x = sweep(-0.02, 0.02)
    got = run(Apply("tanh"), x=x)["y"]
    assert np.max(np.abs(got - np.tanh(x.astype(np.float64)))) <= 1e-8
    np.testing.assert_array_equal(got, -run(Apply("tanh"), x=-x)["y"])


@pytest.mark.parametrize(("low", "high"), [(1.2e-38, 1e-30), (0.5, 2.0), (1.0, 1e6), (1e30, 3e38)])
def test_log(run, low, high):
    x = sweep(low, high)
    want = np.log(x.astype(np.float64))
    got = run(Apply("log"), x=x)["y"]
    assert np.max(np.abs(got - want) / (1 + np.abs(want))) <= 1.5e-7


def test_exp2_of_zero_is_one_and_clamps(run):
    x = np.zeros(SIZE, np.float32)
    x[1:4] = [-126, -1e30, -np.inf]
    got = run(Apply("exp2_nonpositive"), x=x)["y"]
    assert got[0] == 1
    np.testing.assert_array_equal(got[1:4], np.float32(2.0**-125))


@pytest.mark.parametrize("function", ["exp2", "exp2_nonpositive", "tanh", "log"])
def test_nan_stays_nan(run, function):
    x = np.ones(SIZE, np.float32)
    x[5] = np.nan
    got = run(Apply(function), x=x)["y"]
    assert np.isnan(got[5])
    assert np.count_nonzero(np.isnan(got)) == 1


def test_log_of_one_and_infinity(run):
    x = np.ones(SIZE, np.float32)
    x[9] = np.inf
    got = run(Apply("log"), x=x)["y"]
    assert got[9] == np.inf
    assert np.count_nonzero(got) == 1


def test_round_to_int_halves_to_even(run):
    x = sweep(-(2**21), 2**21)
    x[:6] = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5]
    np.testing.assert_array_equal(run(Apply("round_to_int"), x=x)["y"], np.rint(x).astype(np.int32))
