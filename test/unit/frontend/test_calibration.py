"""The factors of smoothing: what they are made of, when they help, and what they may not split."""

import numpy as np
import pytest

from nybble.dialects.lowbit import formats
from nybble.frontend.calibration import best_factors
from nybble.frontend.calibration_text import MODULES, SIZE, calibration_text
from nybble.tools.bench import text as bench_text


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def error(x, w, form, factors):
    rounded = form.quantize(w * factors).dequantize() / factors
    return np.square(x.astype(np.float64) @ (rounded - w).T).sum()


@pytest.mark.parametrize("spec", ["w3g32", "w4g32", "w2g32m"])
def test_a_loud_channel_gets_more_of_the_weight(rng, spec):
    x = rng.standard_normal((64, 64)).astype(np.float32)
    x[:, 7] *= 50
    w = rng.standard_normal((48, 64)).astype(np.float32)
    form = formats.get(spec)
    factors = best_factors(x, [(w, form)])
    assert factors[7] > 2 * np.delete(factors, 7).max()
    assert error(x, w, form, factors) < 0.7 * error(x, w, form, np.ones(64, np.float32))


def test_factors_that_do_not_help_are_ones(rng):
    """A format that loses nothing leaves nothing to gain."""
    x = rng.standard_normal((8, 32)).astype(np.float32)
    w = rng.standard_normal((8, 32)).astype(np.float32)
    factors = best_factors(x, [(w, formats.get("f32"))])
    np.testing.assert_array_equal(factors, 1)


def test_one_token_of_huge_values_does_not_decide_for_all(rng):
    """Attention sinks are such tokens: one channel of them is large, and large in no other token."""
    x = rng.standard_normal((64, 64)).astype(np.float32)
    x[:, 7] *= 20
    sink = x.copy()
    sink[0] = 0
    sink[0, 3] = 3000
    w = rng.standard_normal((48, 64)).astype(np.float32)
    form = formats.get("w3g32")
    factors = best_factors(sink, [(w, form)])
    others = x[1:]
    assert error(others, w, form, factors) <= error(others, w, form, np.ones(64, np.float32))


def test_heads_that_share_values_have_equal_factors(rng):
    x = rng.standard_normal((32, 64)).astype(np.float32) * rng.uniform(0.1, 30, 64)
    w = rng.standard_normal((16, 64)).astype(np.float32)
    factors = best_factors(x.astype(np.float32), [(w, formats.get("w3g32"))], (2, 4))
    heads = factors.reshape(2, 2, 16)
    np.testing.assert_array_equal(heads[:, 0], heads[:, 1])
    assert np.unique(factors).size > 16


def test_dead_channels_do_no_harm(rng):
    x = rng.standard_normal((16, 32)).astype(np.float32)
    w = rng.standard_normal((8, 32)).astype(np.float32)
    x[:, 3] = 0
    w[:, 4] = 0
    factors = best_factors(x, [(w, formats.get("w2g32"))])
    assert np.isfinite(factors).all()
    assert (factors > 0).all()


def test_the_text_is_not_the_one_that_is_measured():
    text = calibration_text()
    assert len(text) == SIZE
    assert not set(MODULES) & set(bench_text.MODULES)
    measured = bench_text.sample_text()
    assert not any(text[at : at + 200] in measured for at in range(0, SIZE - 200, 200))
