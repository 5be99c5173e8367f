"""The interpreter runs sparse products; their references agree with dense numpy."""

import numpy as np
import pytest

from nybble.dialects.interpreter import Interpreter
from nybble.dialects.numpy_ref import sparse as ref
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.semiring import SEMIRINGS

TEXT = """
!a = !spgemm.tensor<?x6, f32, "csr", i32>
!b = !spgemm.tensor<6x9, f32, "csc", i32>
!c = !spgemm.tensor<?x9, f32, "csr", i32>
func.func @products(%a: !a, %b: !b, %m: !c, %x: tensor<6x9xf32>)
    -> (!c, tensor<?x9xf32>, !c, tensor<?x9xf32>) {
  %c = spgemm.matmul %a, %b : !a, !b -> !c
  %d = spgemm.matmul %a, %b semiring "min_plus" : !a, !b -> tensor<?x9xf32>
  %e = spgemm.matmul %a, %b mask %m : !c complement : !a, !b -> !c
  %y = spgemm.spmm %a, %x : !a, tensor<6x9xf32> -> tensor<?x9xf32>
  func.return %c, %d, %e, %y : !c, tensor<?x9xf32>, !c, tensor<?x9xf32>
}
func.func @attention(%q: tensor<?x4xf32>, %k: tensor<9x4xf32>, %m: !c, %v: tensor<9x4xf32>)
    -> tensor<?x4xf32> {
  %s = spgemm.sddmm %q, %k at %m : tensor<?x4xf32>, tensor<9x4xf32> at !c -> !c
  %p = spgemm.softmax %s scale 0.5 : !c
  %y = spgemm.spmm %p, %v : !c, tensor<9x4xf32> -> tensor<?x4xf32>
  func.return %y : tensor<?x4xf32>
}
func.func @convert(%x: tensor<?x9xf32>) -> tensor<?x9xf32> {
  %s = spgemm.convert %x : tensor<?x9xf32> -> !spgemm.tensor<?x9, f32, "coo", i64>
  %y = spgemm.convert %s : !spgemm.tensor<?x9, f32, "coo", i64> -> tensor<?x9xf32>
  func.return %y : tensor<?x9xf32>
}
"""


def sparse(rng, shape, density=0.4, dtype=np.float32):
    return SparseMatrix.from_dense(
        (rng.integers(1, 9, shape) * (rng.random(shape) < density)).astype(dtype)
    )


@pytest.fixture
def interpreter():
    return Interpreter(parse_module(make_context(), TEXT, "test"))


def test_products(interpreter):
    rng = np.random.default_rng(3)
    a, b, mask = (sparse(rng, shape) for shape in ((5, 6), (6, 9), (5, 9)))
    c, d, e, y = interpreter.call("products", a, b, mask, b.to_dense())
    dense = a.to_dense() @ b.to_dense()
    np.testing.assert_array_equal(c.check().to_dense(), dense)
    np.testing.assert_array_equal(y, dense)
    np.testing.assert_array_equal(e.to_dense(), np.where(mask.to_dense() == 0, dense, 0))
    left, right = (np.where(m.to_dense(), m.to_dense(), np.inf) for m in (a, b))
    np.testing.assert_array_equal(d, (left[:, :, None] + right).min(axis=1))


def test_attention_over_a_mask(interpreter):
    rng = np.random.default_rng(4)
    q, k, v = (rng.standard_normal((n, 4), np.float32) for n in (5, 9, 9))
    mask = sparse(rng, (5, 9))
    (y,) = interpreter.call("attention", q, k, mask, v)
    scores = np.where(mask.to_dense() != 0, 0.5 * q @ k.T, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(y, weights / weights.sum(axis=1, keepdims=True) @ v, rtol=1e-4)


def test_conversion_there_and_back(interpreter):
    dense = np.array([[0, 1, np.nan] + [0] * 6], np.float32)
    np.testing.assert_array_equal(interpreter.call("convert", dense)[0], dense)


def test_stored_zeros_and_infinities_meet_stored_entries_only():
    a = SparseMatrix.from_dense(np.array([[np.inf, 1.0]]))
    b = SparseMatrix((2, 2), np.array([0, 0, 2]), np.array([0, 1]), np.array([2.0, 0.0]))
    c = ref.matmul(a, b)
    assert c.nnz == 2  # a stored zero makes an entry
    np.testing.assert_array_equal(c.values, [2, 0])  # inf meets no entry: no NaN


def test_what_does_not_fit_is_refused():
    a = SparseMatrix.from_dense(np.ones((2, 3)))
    b = SparseMatrix.from_dense(np.ones((2, 2)))
    with pytest.raises(SparseError, match="3 columns by 2 rows"):
        ref.matmul(a, b)
    with pytest.raises(SparseError, match="float64 by float32"):
        ref.matmul(b, SparseMatrix.from_dense(np.ones((2, 2), np.float32)))
    with pytest.raises(SparseError, match="a mask of"):
        ref.matmul(b, b, mask=a)
    with pytest.raises(SparseError, match="at a mask of"):
        ref.sddmm(np.ones((2, 2)), np.ones((2, 2)), a)
    assert ref.matmul(b, b, SEMIRINGS["min_plus"]).values.tolist() == [2.0] * 4
