"""Parts of an attention: joined in any order they give the whole; shared prefixes; no keys."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nybble.dialects.numpy_ref.attention import attention, partial
from nybble.dialects.numpy_ref.merge import finish, merge

BOUND = 1e-6


def sample(rng, rows, heads, kv_heads, dim, keys, spread=1.0):
    q = rng.standard_normal((rows, heads * dim)).astype(np.float32) * np.float32(spread)
    k, v = rng.standard_normal((2, kv_heads, keys, dim)).astype(np.float32)
    return q, k, v


def parts_of(q, k, v, rows, bounds):
    """The parts of consecutive ranges of keys, which all rows see."""
    found = []
    for first, end in pairwise(bounds):
        seen = np.zeros((1, rows, k.shape[1]), bool)
        seen[:, :, first:end] = True
        found.append(partial(q, k, v, k.shape[1] - rows, scale=0.3, seen=seen))
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 9999),
    st.lists(st.integers(0, 40), min_size=1, max_size=5),
    st.permutations(range(6)),
)
def test_order_and_grouping_do_not_matter(seed, cuts, order):
    rng = np.random.default_rng(seed)
    rows, keys = 3, 40
    q, k, v = sample(rng, rows, 4, 2, 8, keys, spread=rng.choice([0.1, 1, 30]))
    parts = parts_of(q, k, v, rows, [0, *sorted(cuts), keys])
    whole = np.ones((1, rows, keys), bool)
    want = attention(q, k, v, keys - rows, scale=0.3, seen=whole)
    shuffled = [parts[i] for i in order if i < len(parts)]
    left = shuffled[0]
    for part in shuffled[1:]:
        left = merge(left, part)
    right = shuffled[-1]
    for part in reversed(shuffled[:-1]):
        right = merge(part, right)
    for joined in (left, right):
        out = finish(joined[1], joined[2]).reshape(q.shape)
        np.testing.assert_allclose(out, want, atol=BOUND, rtol=BOUND)


def test_no_keys_are_neutral():
    rng = np.random.default_rng(1)
    q, k, v = sample(rng, 2, 2, 1, 8, 10)
    none = partial(q, k, v, 8, scale=1.0, seen=np.zeros((1, 2, 10), bool))
    assert np.all(none[0] == -np.inf)
    assert not none[1].any()
    assert not none[2].any()
    some = partial(q, k, v, 8, scale=1.0)
    for joined in (merge(none, some), merge(some, none)):
        for got, want in zip(joined, some, strict=True):
            np.testing.assert_array_equal(got, want)
    assert not finish(*merge(none, none)[1:]).any()


def test_a_row_that_sees_nothing_is_zero_and_hidden_values_may_be_anything():
    rng = np.random.default_rng(2)
    q, k, v = sample(rng, 2, 2, 1, 8, 10)
    v[:, 4], k[:, 5] = np.inf, np.nan
    seen = np.ones((1, 2, 10), bool)
    seen[:, :, 4:6] = False
    seen[:, 1] = False
    out = attention(q, k, v, 8, scale=1.0, seen=seen)
    assert np.isfinite(out).all()
    assert not out[1].any()


@pytest.mark.parametrize("keys", [1, 7])
def test_one_key_is_its_value(keys):
    rng = np.random.default_rng(3)
    q, k, v = sample(rng, 1, 2, 2, 4, keys)
    seen = np.zeros((1, 1, keys), bool)
    seen[..., -1] = True
    out = attention(q, k, v, keys - 1, scale=5.0, seen=seen)
    np.testing.assert_array_equal(out.reshape(2, 4), v[:, -1])
