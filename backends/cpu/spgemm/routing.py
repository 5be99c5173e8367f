"""Which way to a dense product is the cheapest: sparse by sparse, sparse by dense, or dense.

A cost is a sum of counts, each times a rate that was measured; the counts follow the loops of the
kernels. A way that fills in zeros is not open to values that a zero does not leave alone: NaN and
infinities, and every semiring but plus_times.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from nybble.backends.cpu.spgemm import product
from nybble.backends.cpu.spgemm.product import DEFAULT, Setting
from nybble.dialects.spgemm.elements import Values, widened
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.semiring import SEMIRINGS, Semiring

PLUS_TIMES = SEMIRINGS["plus_times"]


class Route(StrEnum):
    """A way to a dense result. spgemm: B stays sparse; spmm: B is filled in; dense: both are."""

    SPGEMM = "spgemm"
    SPMM = "spmm"
    DENSE = "dense"


@dataclass(frozen=True)
class Counts:
    """What a product asks for: its shape [m, k] by [k, n], entries of A, products, bytes of a sum.

    filled: whether B is at hand with its zeros filled in.
    """

    m: int
    k: int
    n: int
    entries: int
    products: int
    bytes: int
    filled: bool = False


@dataclass(frozen=True)
class Rates:
    """Nanoseconds on one thread, for each byte of a sum: measured on AMD Zen 3 by
    `nybble bench spgemm` (docs/performance-accelerators.md).

    product: of sparse by sparse; clear: of each place of the result; axpy: of an entry of A by a
    column of a filled-in B; multiply: of dense by dense; fill: of each place that is filled in.
    """

    product: float = 0.25
    clear: float = 0.5
    axpy: float = 0.112
    multiply: float = 0.01
    fill: float = 0.25


RATES = Rates()


def costs(counts: Counts, rates: Rates = RATES) -> Mapping[Route, float]:
    """Nanoseconds of every route on one thread."""
    places = counts.m * counts.n * rates.clear
    fill = 0.0 if counts.filled else counts.k * counts.n * rates.fill
    made = {
        Route.SPGEMM: places + counts.products * rates.product,
        Route.SPMM: places + fill + counts.entries * counts.n * rates.axpy,
        Route.DENSE: places
        + fill
        + counts.m * counts.k * rates.fill
        + counts.m * counts.k * counts.n * rates.multiply,
    }
    return {route: cost * counts.bytes for route, cost in made.items()}


@dataclass(frozen=True)
class Right:
    """A right operand, checked; filled: the same matrix with its zeros, if it is at hand."""

    sparse: SparseMatrix
    filled: Values | None = None

    @staticmethod
    def prepared(matrix: SparseMatrix) -> "Right":
        """With its zeros filled in, as for a weight that many products share."""
        return Right(matrix, widened(matrix.to_dense().reshape(-1)).reshape(matrix.shape))

    def dense(self) -> Values:
        """With its zeros, in the type of its sums."""
        return self.filled if self.filled is not None else Right.prepared(self.sparse).dense()


def count(a: SparseMatrix, b: Right) -> Counts:
    """The counts of A B; the products as if the entries of B were spread evenly over its rows."""
    depth, n = b.sparse.shape
    products = a.nnz * b.sparse.nnz // max(1, depth)
    size = widened(a.values[:1]).itemsize
    return Counts(a.shape[0], depth, n, a.nnz, products, size, b.filled is not None)


def choose(a: SparseMatrix, b: Right, ring: Semiring, rates: Rates = RATES) -> Route:
    """The cheapest route that gives the same result as the others."""
    if ring.name != "plus_times" or not (_finite(a.values) and _finite(b.sparse.values)):
        return Route.SPGEMM
    found = costs(count(a, b), rates)
    return min(found, key=lambda route: found[route])


def choose_dense_left(x: Values, b: SparseMatrix, turned: Right, rates: Rates = RATES) -> Route:
    """The cheaper of sparse times dense and dense for x b^T, of dense x [m, k] and sparse b [n, k].

    turned: the transpose of b, with its zeros if they are at hand.
    """
    if not (np.isfinite(x).all() and _finite(b.values)):
        return Route.SPMM
    (m, k), n = x.shape, b.shape[0]
    fill = 0.0 if turned.filled is not None else k * n * rates.fill
    return Route.SPMM if b.nnz * m * rates.axpy < fill + m * k * n * rates.multiply else Route.DENSE


def to_dense_product(
    a: SparseMatrix,
    b: Right,
    ring: Semiring = PLUS_TIMES,
    setting: Setting = DEFAULT,
    route: Route | None = None,
) -> Values:
    """A B as a dense array in the type of its sums; route: `choose` by default."""
    taken = route or choose(a, b, ring)
    if taken is Route.SPGEMM:
        return product.spread(a, b.sparse, ring, setting)
    wide = a.with_values(widened(a.values))
    if taken is Route.SPMM:
        return product.spmm(wide, b.dense(), ring, setting)
    return multiply_dense(wide.to_dense(), b.dense(), setting)


def multiply_dense(x: Values, y: Values, setting: Setting) -> Values:
    """x [m, k] times y [k, n] by NumPy's BLAS, on at most as many threads as the setting has."""
    with _blas().limit(limits=setting.threads, user_api="blas"):
        return x @ y


@cache
def _blas() -> Any:
    """What holds BLAS to a number of threads: by itself it takes all that there are."""
    return import_module("threadpoolctl").ThreadpoolController()


def _finite(values: Values) -> bool:
    return bool(np.isfinite(widened(values)).all())
