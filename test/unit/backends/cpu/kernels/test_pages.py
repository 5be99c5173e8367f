"""Bounds of pages and the choice of pages against the reference."""

import numpy as np
import pytest

from nybble.backends.cpu.kernels.pages import AppendBounds, PageBounds, SelectPages
from nybble.dialects.numpy_ref.pages import append_bounds, select_pages

SHAPES = [(1, 16, 16, 8, 2, 1), (2, 32, 12, 16, 6, 1), (3, 64, 24, 16, 3, 4)]


def grown(rng, form, end):
    keys = rng.standard_normal((end, form.kv_heads * form.head_dim)).astype(np.float32)
    empty = np.full((form.kv_heads, form.pages, 2 * form.head_dim), np.nan, np.float32)
    return append_bounds(empty, keys, 0, form.size), keys


def run_append(run, spec, bounds, keys, pos):
    found = run(spec, n=len(keys), pos=pos, threads=2, rows=keys, bounds=bounds)
    return found["bounds"].reshape(bounds.shape)


@pytest.mark.parametrize(("kv_heads", "dim", "pages", "size", "heads", "parts"), SHAPES)
def test_bounds(run, rng, kv_heads, dim, pages, size, heads, parts):
    form = PageBounds(kv_heads, dim, pages, size)
    want, keys = grown(rng, form, 5 * size + 3)
    got = np.full_like(want, np.nan)
    for begin, end in ((0, 1), (1, 2), (2, size + 5), (size + 5, len(keys))):
        spec = AppendBounds(form, 1 if end - begin == 1 else len(keys))
        got = run_append(run, spec, got, keys[begin:end], begin)
    np.testing.assert_array_equal(got, want)
    assert np.isnan(got[:, 6:]).all()


@pytest.mark.parametrize(("kv_heads", "dim", "pages", "size", "heads", "parts"), SHAPES)
def test_choice(run, rng, kv_heads, dim, pages, size, heads, parts):
    form = PageBounds(kv_heads, dim, pages, size)
    bounds, _ = grown(rng, form, pages * size)
    for rows, n, pos in ((1, 1, 0), (1, 1, pages * size - 1), (40, 33, 3), (40, 9, 5 * size)):
        n = min(n, pages * size - pos)
        q = rng.standard_normal((n, heads * dim)).astype(np.float32)
        spec = SelectPages(form, heads, rows, 3, parts, threads=2)
        found = run(spec, n=n, pos=pos, threads=2, q=q, bounds=bounds)["list"]
        want = select_pages(q, bounds, pos, parts=parts, size=size * parts, count=3)
        np.testing.assert_array_equal(found[: want.size].reshape(want.shape), want)


def test_a_page_with_the_largest_score_is_chosen(rng):
    """A bound is never below the score of a key of its page, so the one page that counts is in."""
    keys = rng.standard_normal((128, 16)).astype(np.float32)
    keys[37] *= 100
    bounds = append_bounds(np.zeros((1, 8, 32), np.float32), keys, 0, 16)
    chosen = select_pages(keys[37:38], bounds, 127, parts=1, size=16, count=2)
    assert chosen.tolist() == [[[7, 37 // 16]]]


def test_odd_heads_are_refused():
    with pytest.raises(ValueError, match="head size 24 is not a multiple of 16"):
        PageBounds(1, 24, 4, 16)
