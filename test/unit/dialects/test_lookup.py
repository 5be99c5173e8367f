"""The numpy reference of lookup tables: what they hold, and that looking up is multiplying."""

import numpy as np
import pytest

from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.affine import Affine, affine
from nybble.dialects.numpy_ref.lookup import build_tables, code_sums
from nybble.dialects.numpy_ref.quantize import quantize_rows


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def integers(rng, rows=3, cols=192, group=64):
    q, scale, _ = quantize_rows(rng.standard_normal((rows, cols)).astype(np.float32), group)
    return q.astype(np.int32), scale


def products(q, codes, group):
    each = q[:, None, :] * codes.astype(np.int64)
    return each.reshape(len(q), len(codes), -1, group).sum(axis=3)


@pytest.mark.parametrize("symmetric", [False, True])
def test_entries(symmetric):
    q = np.array([[1, 20, -3, 100]], np.int32)
    tables = build_tables(q, np.ones((1, 1), np.float32), symmetric=symmetric, exact=True)
    entries = tables.all_entries()[0, 0]
    assert entries[0b0110] == (-1 + 20 - 3 - 100 if symmetric else 20 - 3)
    assert entries[0b1111] == 118
    assert tables.entries.shape == (1, 1, 8 if symmetric else 16)
    assert tables.sums[0, 0] == 118


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("symmetric", [False, True])
def test_exact_tables_give_the_integer_product(rng, bits, symmetric):
    q, scale = integers(rng)
    q[0, :64], q[1, :64] = 127, -127
    codes = rng.integers(0, 2**bits, (5, 192)).astype(np.uint8)
    codes[0], codes[1] = 2**bits - 1, 0
    tables = build_tables(q, scale, symmetric=symmetric, exact=True)
    np.testing.assert_array_equal(code_sums(tables, codes, bits), products(q, codes, 64))


@pytest.mark.parametrize("symmetric", [False, True])
def test_rounded_tables_are_off_by_half_a_step_each(rng, symmetric):
    q, scale = integers(rng)
    q[2] = 0
    codes = rng.integers(0, 8, (5, 192)).astype(np.uint8)
    tables = build_tables(q, scale, symmetric=symmetric, exact=False)
    error = np.abs(code_sums(tables, codes, 3) - products(q, codes, 64))
    bound = 0.5 * tables.unit * (64 // 4) * 7 / (2 if symmetric else 1)
    assert np.all(error <= bound[:, None, :] * 1.000001)
    assert error.max() > 0
    assert np.all(error[2] == 0)


def test_symmetric_rounding_loses_less(rng):
    q, scale = integers(rng, 16)
    codes = rng.integers(0, 4, (64, 192)).astype(np.uint8)
    want = products(q, codes, 64)
    losses = [
        np.square(code_sums(build_tables(q, scale, symmetric=s, exact=False), codes, 2) - want)
        for s in (True, False)
    ]
    assert losses[0].sum() < 0.8 * losses[1].sum()


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("q4_0", Affine(1, -8)),
        ("q4_1", Affine(1, 0)),
        ("tq2_0", Affine(1, -1)),
        ("w1g32", Affine(2, -1)),
        ("bip3:g=32:s=f16", Affine(2, -7)),
        ("nf4", None),
        ("mxfp4", None),
        ("f16", None),
        ("bitmod3", None),
        ("table[-2,1]:g=32:s=f16", Affine(3, -2)),
    ],
)
def test_lines(spec, line):
    assert affine(formats.get(spec).element) == line
