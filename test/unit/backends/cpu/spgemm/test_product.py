"""Generated sparse products against their references: equal to the bit under every accumulator."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from nybble.backends.cpu.spgemm import product, result, routing
from nybble.backends.cpu.spgemm.frame import Limits
from nybble.backends.cpu.spgemm.product import Setting
from nybble.backends.cpu.spgemm.routing import Counts, Right, Route
from nybble.dialects.numpy_ref import sparse as ref
from nybble.dialects.spgemm import matrix as matrices
from nybble.dialects.spgemm.elements import to_bf16
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.semiring import SEMIRINGS

PLUS_TIMES = SEMIRINGS["plus_times"]
CHOICES = {
    "chosen": {},
    "drained": {"drained": 1 << 20},
    "ranked": {"drained": 0},
    "listed": {"drained": 0, "short": 0},
    "hashed": {"drained": 0, "short": 0, "window": 0},
}
# So few rows at a time that small matrices have many chunks for threads to take.
CHOICES = {name: Limits(**options, room=40, work=200) for name, options in CHOICES.items()}
SHAPES = {
    "no rows": (0, 3, 4, 0.5, 0.5),
    "no columns": (3, 2, 0, 0.5, 0.5),
    "no depth": (3, 0, 4, 0.5, 0.5),
    "one": (1, 1, 1, 1, 1),
    "full": (33, 40, 70, 1, 1),
    "odd": (50, 61, 701, 0.2, 0.3),
    "thin": (60, 80, 30, 0.06, 0.1),
    "wide": (40, 300, 3000, 0.1, 0.01),
    "empty": (9, 9, 9, 0, 0.5),
}


def sparse(rng, shape, density, dtype=np.float64, bits=32):
    values = rng.integers(1, 9, shape) * (rng.random(shape) < density)
    return SparseMatrix.from_dense(values.astype(dtype), bits)


def hub(rng, size, dtype=np.float64, bits=32):
    """Rows without entries, a full row and a full column."""
    bits_set = rng.random((size, size)) < 0.02
    bits_set[::3] = False
    bits_set[7] = bits_set[:, 5] = True
    return SparseMatrix.from_dense(
        (bits_set * rng.integers(1, 9, (size, size))).astype(dtype), bits
    )


def assert_same(found, wanted):
    found.check()
    assert found.shape == wanted.shape
    assert found.values.dtype == wanted.values.dtype
    np.testing.assert_array_equal(found.indptr, wanted.indptr)
    np.testing.assert_array_equal(found.indices, wanted.indices)
    np.testing.assert_array_equal(found.values, wanted.values)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", SHAPES)
def test_every_accumulator_on_every_shape(name, choice):
    m, k, n, left, right = SHAPES[name]
    rng = np.random.default_rng(len(name))
    a, b = sparse(rng, (m, k), left), sparse(rng, (k, n), right)
    wanted = ref.matmul(a, b)
    for threads in (1, 3):
        setting = Setting(threads, limits=CHOICES[choice])
        assert_same(product.matmul(a, b, PLUS_TIMES, setting), wanted)


@pytest.mark.parametrize("choice", CHOICES)
def test_hubs_and_empty_rows(choice):
    a = hub(np.random.default_rng(1), 200)
    for threads in (1, 2, 5):
        setting = Setting(threads, limits=CHOICES[choice])
        assert_same(product.matmul(a, a, PLUS_TIMES, setting), ref.matmul(a, a))


def test_sums_do_not_depend_on_the_accumulator_or_the_threads():
    rng = np.random.default_rng(2)
    a = hub(rng, 150)
    a = a.with_values(rng.standard_normal(a.nnz))
    settings = [Setting(threads, limits=one) for one in CHOICES.values() for threads in (1, 2)]
    first, *others = (product.matmul(a, a, PLUS_TIMES, setting).values for setting in settings)
    for one in others:
        np.testing.assert_array_equal(one.view(np.int64), first.view(np.int64))
    exact = ref.matmul(a, a).values
    np.testing.assert_allclose(first, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("element", "ring", "bits"),
    [("i8", "or_and", 64), ("f32", "min_plus", 32), ("bf16", "plus_times", 32)],
)
def test_elements_and_semirings(element, ring, bits):
    rng = np.random.default_rng(3)
    a = hub(rng, 120, np.float32, bits)
    values = {
        "i8": np.ones(a.nnz, np.int8),
        "f32": rng.integers(-9, 9, a.nnz).astype(np.float32),
        "bf16": to_bf16(a.values),
    }[element]
    a = a.with_values(values)
    for limits in CHOICES.values():
        found = product.matmul(a, a, SEMIRINGS[ring], Setting(2, limits=limits))
        assert_same(found, ref.matmul(a, a, SEMIRINGS[ring]))
    zero = SEMIRINGS[ring].zero(found.values.dtype)
    filled = product.spread(a, a, SEMIRINGS[ring], Setting(2))
    np.testing.assert_array_equal(filled, found.to_dense(zero))


@pytest.mark.parametrize("threads", [1, 2])
def test_stretches_of_rows_join(threads, monkeypatch):
    a = hub(np.random.default_rng(4), 90)
    monkeypatch.setattr(result, "RESERVED", 400)
    setting = Setting(threads, limits=CHOICES["chosen"])
    assert_same(product.matmul(a, a, PLUS_TIMES, setting), ref.matmul(a, a))


def test_a_result_that_indices_cannot_count_is_refused(monkeypatch):
    a = hub(np.random.default_rng(5), 60)
    monkeypatch.setattr(matrices, "LARGEST_32", ref.matmul(a, a).nnz - 1)
    with pytest.raises(SparseError, match="with indices of 32 bits"):
        product.matmul(a, a)


@pytest.mark.parametrize("n", [0, 1, 7, 64, 77])
def test_dense_operands(n):
    rng = np.random.default_rng(7)
    a = sparse(rng, (37, 50), 0.2)
    x, y = rng.integers(-8, 8, (50, n)).astype(float), rng.integers(-8, 8, (37, n)).astype(float)
    for threads in (1, 2):
        setting = Setting(threads)
        np.testing.assert_array_equal(
            product.spmm(a, x, setting=setting), a.to_dense() @ x if n else np.zeros((37, 0))
        )
        assert_same(product.sddmm(y, x, a, setting), ref.sddmm(y, x, a))
    with pytest.raises(SparseError, match="at a mask of"):
        product.sddmm(x, y, a)


@pytest.mark.parametrize("route", Route)
def test_routes_agree(route):
    rng = np.random.default_rng(8)
    a, b = sparse(rng, (20, 64), 0.1), sparse(rng, (64, 70), 0.3)
    found = routing.to_dense_product(a, Right(b), route=route)
    np.testing.assert_array_equal(found, ref.matmul(a, b).to_dense())


def test_the_cheapest_route_is_taken():
    def cheapest(share, density, filled=True):
        entries = int(256 * 4096 * share)
        counts = Counts(256, 4096, 2048, entries, int(entries * 2048 * density), 4, filled)
        found = routing.costs(counts)
        return min(found, key=lambda route: found[route])

    assert cheapest(0.01, 0.01) is Route.SPGEMM
    assert cheapest(0.05, 0.6) is Route.SPMM
    assert cheapest(0.9, 0.9) is Route.DENSE
    assert cheapest(0.001, 0.6, filled=False) is Route.SPGEMM  # filling in would cost more


def test_zeros_are_not_filled_in_where_they_would_be_met():
    a = SparseMatrix.from_dense(np.array([[np.inf, 1.0]]))
    b = SparseMatrix.from_dense(np.array([[0.0, 1.0], [1.0, 1.0]]))
    assert routing.choose(a, Right.prepared(b), PLUS_TIMES) is Route.SPGEMM
    np.testing.assert_array_equal(routing.to_dense_product(a, Right(b)), [[1, np.inf]])
    assert routing.choose(b, Right(b), SEMIRINGS["min_plus"]) is Route.SPGEMM


def test_threads_after_a_fork():
    a = hub(np.random.default_rng(0), 300)
    setting = Setting(2, limits=CHOICES["chosen"])
    before = product.matmul(a, a, PLUS_TIMES, setting)
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        after = pool.submit(product.matmul, a, a, PLUS_TIMES, setting).result(timeout=60)
    assert_same(after, before)


@pytest.mark.parametrize("threads", [1, 2])
def test_dense_products_take_as_many_threads_as_they_may(threads):
    class Watched(np.ndarray):
        def __matmul__(self, other):
            taken.extend(
                one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"
            )
            return np.asarray(self) @ other

    taken = []
    x = np.arange(6.0).reshape(2, 3).view(Watched)
    found = routing.multiply_dense(x, np.eye(3), Setting(threads))
    assert np.array_equal(found, np.arange(6.0).reshape(2, 3))
    assert taken
    assert max(taken) <= threads
