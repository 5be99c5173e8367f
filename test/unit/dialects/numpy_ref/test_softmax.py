"""The three kinds of softmax give the same, also where a fixed maximum overflows."""

import numpy as np
import pytest

from nybble.dialects.numpy_ref.softmax import online, two_pass, unified


def exact(logits, values):
    wide = logits.astype(np.float64)
    largest = wide.max(axis=1, keepdims=True)
    weights = np.exp(wide - np.where(np.isinf(largest), 0, largest))
    total = weights.sum(axis=1, keepdims=True)
    return weights @ values / np.where(total == 0, 1, total)


@pytest.mark.parametrize("block", [1, 16, 64, 1000])
@pytest.mark.parametrize("size", [0.0, 1.0, 70.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, -300.0, 200.0])
def test_kinds_agree(block, size, offset):
    rng = np.random.default_rng(int(size + block))
    logits = (rng.standard_normal((5, 150)) * size + offset).astype(np.float32)
    logits[1, 20:] = -np.inf
    logits[2] = -np.inf
    values = rng.standard_normal((150, 8)).astype(np.float32)
    want = exact(logits, values)
    found, again = unified(logits, values, block)
    for got in (online(logits, values, block), two_pass(logits, values), found):
        np.testing.assert_allclose(got, want, atol=2e-6, rtol=2e-6)
    far = np.abs(logits.max(axis=1)) > 80
    np.testing.assert_array_equal(again, far)
    assert again[2]


def test_a_fixed_number_is_taken_where_it_does():
    logits = np.float32([[250.0, 251.0]])
    _, again = unified(logits, np.eye(2, dtype=np.float32), 1, centre=240.0)
    assert not again.any()
