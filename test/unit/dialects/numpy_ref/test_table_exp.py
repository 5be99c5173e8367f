"""exp by a table: the error over every exponent, and what is beyond its range."""

import numpy as np

from nybble.dialects.numpy_ref import table_exp


def test_error_is_within_the_bound_everywhere():
    random = np.random.default_rng(0)
    inside = random.uniform(table_exp.SMALLEST, table_exp.LARGEST, 400_000)
    near = random.standard_normal(100_000) * 2.0 ** -random.integers(0, 30, 100_000)
    x = np.concatenate([inside, near, [0.0, -0.0]]).astype(np.float32)
    wanted = np.exp(x.astype(np.float64))
    unit = np.spacing(wanted.astype(np.float32)).astype(np.float64)
    assert (np.abs(table_exp.exp(x) - wanted) <= table_exp.ULPS * unit).all()


def test_beyond_the_range():
    x = np.array([np.inf, 88.7, -87.3, -1e30, -np.inf, np.nan], np.float32)
    found = table_exp.exp(x)
    assert found[:5].tolist() == [np.inf, np.inf, 0.0, 0.0, 0.0]
    assert np.isnan(found[5])
    assert found.dtype == np.float32


def test_the_first_part_of_a_piece_is_exact():
    whole = np.arange(-4096, 4097)
    products = whole.astype(np.float32) * table_exp.PIECE_HIGH
    assert (products.astype(np.float64) == whole * float(table_exp.PIECE_HIGH)).all()
