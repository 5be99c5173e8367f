"""The search for a cut of each group: never worse, better where it matters, safe at the edges."""

import numpy as np
import pytest

from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.frontend.compensation import compensated
from nybble.frontend.rounding import nearest, quantizer_named, searched
from nybble.frontend.weight_choice import QUANTIZERS, WeightChoice


def errors(weight, values, group):
    off = (weight.dequantize().astype(np.float64) - values).reshape(len(values), -1, group)
    return np.square(off).sum(axis=2)


@pytest.fixture
def values():
    rng = np.random.default_rng(0)
    found = rng.standard_normal((24, 256)).astype(np.float32)
    found[rng.random(found.shape) < 0.02] *= 5
    return found


@pytest.mark.parametrize(
    "spec", ["w2g32", "w2g64m", "w3g32z", "w4g128", "w2", "nf4", "mxfp4", "q4_k"]
)
def test_no_group_is_worse(values, spec):
    form = formats.get(spec)
    group = form.group_size(256) * form.grouping.count
    plain, found = (errors(one(form, values), values, group) for one in (nearest, searched))
    slack = 1.05 if form.grouping.count > 1 else 1.0 + 1e-5  # groups of K-quants share scales
    assert (found <= plain * slack + 1e-6).all()


@pytest.mark.parametrize(("spec", "gain"), [("w2g64", 0.8), ("w2g32m", 0.75), ("w3g64", 0.9)])
def test_few_codes_gain_much(values, spec, gain):
    form = formats.get(spec)
    group = form.group_size(256)
    plain, found = (errors(one(form, values), values, group).sum() for one in (nearest, searched))
    assert found < gain * plain


@pytest.mark.parametrize("spec", ["w2g32", "w3g32m", "w4g32z"])
@pytest.mark.parametrize("offset", [-9.0, 0.0, 9.0])
def test_groups_of_one_sign_and_of_zeros(values, spec, offset):
    form = formats.get(spec)
    shifted = values + np.float32(offset)
    plain, found = (errors(one(form, shifted), shifted, 32) for one in (nearest, searched))
    assert (found <= plain * (1 + 1e-5) + 1e-6).all()
    zeros = np.zeros((4, 64), np.float32)
    np.testing.assert_array_equal(searched(form, zeros).dequantize(), zeros)


def test_floats_have_nothing_to_search(values):
    np.testing.assert_array_equal(searched(formats.get("f32"), values).dequantize(), values)


def test_quantizers_by_name():
    assert [quantizer_named(name) for name in QUANTIZERS] == [nearest, searched, compensated]
    with pytest.raises(NybbleError, match=r"unknown quantizer 'best' .*nearest, search"):
        WeightChoice("w4g32", quantizer="best")
    assert WeightChoice("w4g32", rotate="stream", quantizer="search").describe() == (
        "w4g32 rotate=stream search"
    )
