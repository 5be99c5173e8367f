"""Products at and beside the places of masks: against the reference, and how much they look at."""

import numpy as np
import pytest

from nybble.backends.cpu.spgemm import product
from nybble.backends.cpu.spgemm.frame import Limits
from nybble.backends.cpu.spgemm.masking import matmul_at, matmul_beside
from nybble.backends.cpu.spgemm.product import Setting
from nybble.dialects.numpy_ref import sparse as ref
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.semiring import SEMIRINGS

PLUS_TIMES = SEMIRINGS["plus_times"]
SHAPES = {
    "odd": (50, 61, 701, 0.2, 0.3),
    "searched": (40, 30, 900, 0.2, 0.8),
    "one": (1, 1, 1, 1, 1),
    "no depth": (3, 0, 4, 0.5, 0.5),
    "no columns": (3, 2, 0, 0.5, 0.5),
    "empty": (9, 9, 9, 0, 0.5),
}
FEW_ROWS = Limits(room=40, work=200)  # at a time: small matrices have many chunks
DENSITIES = (0, 0.004, 0.3, 1)


def sparse(rng, shape, density, dtype=np.float64, bits=32):
    values = rng.integers(1, 9, shape) * (rng.random(shape) < density)
    return SparseMatrix.from_dense(values.astype(dtype), bits)


def assert_same(found, wanted):
    found.check()
    for name in ("indptr", "indices", "values"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert (found.shape, found.values.dtype) == (wanted.shape, wanted.values.dtype)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_at_and_beside_a_mask(name, density):
    m, k, n, left, right = SHAPES[name]
    rng = np.random.default_rng(len(name))
    a, b = sparse(rng, (m, k), left), sparse(rng, (k, n), right)
    mask = sparse(rng, (m, n), density)
    for threads in (1, 3):
        setting = Setting(threads, limits=FEW_ROWS)
        found = matmul_at(a, b, mask, PLUS_TIMES, setting).product
        assert_same(found, ref.matmul(a, b, mask=mask))
        beside = matmul_beside(a, b, mask, PLUS_TIMES, setting)
        assert_same(beside, ref.matmul(a, b, mask=mask, complement=True))


@pytest.mark.parametrize(
    ("element", "ring", "bits"), [("i8", "or_and", 64), ("f32", "min_plus", 32)]
)
def test_elements_and_semirings(element, ring, bits):
    rng = np.random.default_rng(3)
    a = sparse(rng, (60, 60), 0.2, bits=bits)
    values = {"i8": np.ones(a.nnz, np.int8), "f32": a.values.astype(np.float32)}
    a, mask = a.with_values(values[element]), sparse(rng, (60, 60), 0.2, bits=bits)
    found = matmul_at(a, a, mask, SEMIRINGS[ring], Setting(2, limits=FEW_ROWS)).product
    assert_same(found, ref.matmul(a, a, SEMIRINGS[ring], mask))


def test_sums_are_the_same_to_the_bit_as_without_a_mask():
    rng = np.random.default_rng(5)
    a = sparse(rng, (80, 80), 0.3)
    a = a.with_values(rng.standard_normal(a.nnz))
    mask = sparse(rng, (80, 80), 0.3)
    whole = product.matmul(a, a).to_dense()
    found = matmul_at(a, a, mask).product
    np.testing.assert_array_equal(found.values, whole[found.row_ids, found.indices])


def test_work_follows_the_mask():
    rng = np.random.default_rng(4)
    size = 400
    a = sparse(rng, (size, size), 0.5)
    products = int(np.diff(a.indptr)[a.indices].sum())
    tested: list[int] = []
    for rows in (size, size // 4, size // 16, 0):
        dense = np.zeros((size, size))
        dense[:rows, :3] = 1  # three places a row, in rows that are 200 long
        mask = SparseMatrix.from_dense(dense)
        found = matmul_at(a, a, mask)
        assert_same(found.product, ref.matmul(a, a, mask=mask))
        entries = int(a.indptr[rows])
        assert found.tested == 3 * entries  # each place, for each entry that it may meet
        tested.append(found.tested)
    assert tested[0] < products / 50
    everywhere = SparseMatrix.from_dense(np.ones((size, size)))
    assert matmul_at(a, a, everywhere).tested == products


def test_a_mask_of_another_shape_is_refused():
    a = SparseMatrix.from_dense(np.eye(3))
    mask = SparseMatrix.from_dense(np.ones((3, 4)))
    for multiply in (matmul_at, matmul_beside):
        with pytest.raises(SparseError, match="a mask of"):
            multiply(a, a, mask)
