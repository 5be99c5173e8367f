"""Rounding with compensation: less error of products than rounding alone, and safe at the edges."""

import numpy as np
import pytest

from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.frontend.compensation import Hessian, compensated, reason_against
from nybble.frontend.requantize import check_compensation

ROWS, COLS = 40, 256


@pytest.fixture(scope="module")
def inputs():
    """f32 [1024, COLS], correlated, of channels of many sizes."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((1024, COLS)) @ (
        rng.standard_normal((COLS, COLS)) / 8 + np.eye(COLS)
    )
    return (mixed * np.exp(rng.standard_normal(COLS) / 2)).astype(np.float32)


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(1).standard_normal((ROWS, COLS)).astype(np.float32)


def product_error(inputs, weight, values):
    return np.square(inputs.astype(np.float64) @ (weight.dequantize() - values).T).sum()


@pytest.mark.parametrize(
    ("spec", "gain"),
    [
        ("w4g64", 0.6),
        ("w4", 0.5),
        ("w3g32z", 0.7),
        ("w2g32m", 0.6),
        ("w2g64", 0.7),
        ("ternary:g=64:s=f16", 0.9),
        ("bip2:g=32:s=f16", 0.7),
        ("nf4", 0.5),
        ("mxfp4", 0.7),
        ("q4_0", 0.6),
        ("q4_k", 0.8),
        ("i4:g=48:s=f32", 0.6),
    ],
)
def test_products_err_less_than_with_rounding_alone(inputs, values, spec, gain):
    form = formats.get(spec)
    cols = COLS - COLS % form.block
    some, x = np.ascontiguousarray(values[:, :cols]), inputs[:, :cols]
    found = compensated(form, some, Hessian.of(x))
    assert product_error(x, found, some) < gain * product_error(x, form.quantize(some), some)
    again = form.unpack(form.pack(found), cols)
    np.testing.assert_array_equal(again.dequantize(), found.dequantize())


@pytest.mark.parametrize("spec", ["w4g32", "w3g64m", "nf4", "q4_k"])
def test_inputs_that_tell_nothing_leave_rounding_as_it_is(monkeypatch, values, spec):
    monkeypatch.setattr("nybble.frontend.compensation.FACTORS", (1.0,))
    form = formats.get(spec)
    found = compensated(form, values, Hessian.of(np.eye(COLS, dtype=np.float32)))
    plain = form.quantize(values).dequantize()
    assert np.mean(np.abs(found.dequantize() - plain) > 1e-6) < 0.02  # ties, and ggml's own order


def test_rows_do_not_know_of_each_other(monkeypatch, inputs, values):
    form, hessian = formats.get("w3g32m"), Hessian.of(inputs)
    whole = compensated(form, values, hessian).dequantize()
    monkeypatch.setattr("nybble.frontend.compensation.SLAB", 16)
    np.testing.assert_allclose(compensated(form, values, hessian).dequantize(), whole, atol=1e-5)


def test_the_factor_is_that_of_the_inverse(inputs):
    factor = Hessian.of(inputs[:, :32]).factor.astype(np.float64)
    squares = inputs[:, :32].astype(np.float64).T @ inputs[:, :32]
    damped = squares / squares.diagonal().mean() + 0.3 * np.eye(32)
    np.testing.assert_allclose(factor.T @ factor @ damped, np.eye(32), atol=1e-4)
    assert not np.tril(factor, -1).any()


@pytest.mark.parametrize("spec", ["w2g32", "w4g64m"])
def test_singular_inputs_and_dead_channels(values, spec):
    form = formats.get(spec)
    one = np.zeros((3, COLS), np.float32)
    one[:, 5] = 2
    for x in (np.zeros((3, COLS), np.float32), one, np.ones((1, COLS), np.float32)):
        found = compensated(form, values, Hessian.of(x)).dequantize()
        assert np.isfinite(found).all()
        assert np.square(found - values).mean() < np.square(values).mean()
    zeros = np.zeros((4, COLS), np.float32)
    np.testing.assert_array_equal(compensated(form, zeros, Hessian.of(one)).dequantize(), zeros)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused(inputs, bad):
    spoiled = inputs.copy()
    spoiled[7, 3] = bad
    with pytest.raises(NybbleError, match="activations that are not finite"):
        Hessian.of(spoiled)


def test_without_inputs_and_without_codes_the_format_rounds(inputs, values):
    form, exact = formats.get("w3g32"), formats.get("f32")
    plain = form.quantize(values).dequantize()
    np.testing.assert_array_equal(compensated(form, values, None).dequantize(), plain)
    found = compensated(exact, values, Hessian.of(inputs)).dequantize()
    np.testing.assert_array_equal(found, values)
    nothing = np.zeros((0, COLS), np.float32)
    assert compensated(form, nothing, Hessian.of(inputs)).shape == (0, COLS)


@pytest.mark.parametrize("spec", ["i4:g=32:s=f16:sparse=2of4", "i4:g=32:s=f16:fix=hadamard.32"])
def test_formats_that_do_not_round_by_groups_are_refused(inputs, values, spec):
    form = formats.get(spec)
    assert reason_against(form) is not None
    with pytest.raises(NybbleError, match="cannot be rounded with compensation"):
        compensated(form, values, Hessian.of(inputs))
    with pytest.raises(NybbleError, match=r"tensor 'a' cannot be rounded to .* compensation"):
        check_compensation({spec: "a"})
