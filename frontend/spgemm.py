"""`nybble.spgemm`: products of sparse matrices on this machine's processors.

    c = nybble.spgemm.matmul(a, b)                       # SciPy in, SciPy out
    y = nybble.spgemm.matmul(a, b, dense=True)           # a numpy array, by the cheapest route
    d = nybble.spgemm.matmul(a, a, semiring="min_plus")
    s = nybble.spgemm.sddmm(q, k, mask)                  # q k^T where the mask has entries

Operands are SciPy matrices, torch sparse tensors, `SparseMatrix`, or paths of `.mtx` and `.npz`
files; one dtype for both.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nybble.backends.cpu.host import thread_count
from nybble.backends.cpu.spgemm import masking, product, routing
from nybble.backends.cpu.spgemm.product import Setting
from nybble.dialects.numpy_ref.sparse import softmax
from nybble.dialects.spgemm.elements import Values
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.semiring import semiring as ring_named
from nybble.frontend.sparse_files import from_any, to_scipy


def matmul(
    a: Any,
    b: Any,
    *,
    semiring: str = "plus_times",
    mask: Any = None,
    complement: bool = False,
    dense: bool = False,
    threads: int | None = None,
    cache: Path | None = None,
) -> Any:
    """A B of sparse matrices [m, k] and [k, n]: a csr_array, columns ascending.

    An entry is there wherever a pair of stored entries meets, also where they cancel. f16, bf16
    and i8 are added up in f32 and i32, which is the type of the result; other types in themselves.
    semiring: plus_times, or_and, min_plus. mask: only its places are kept (complement: only the
    others). dense: a numpy array instead, the zero of the semiring elsewhere. threads: by default
    one for each processor. cache: a folder for compiled kernels.
    Raises SparseError for malformed matrices and for shapes or types that do not fit.
    """
    ring, setting = ring_named(semiring), _setting(threads, cache)
    left, right = from_any(a), from_any(b)
    if complement and mask is None:
        raise SparseError("complement without a mask")
    if dense and mask is None:
        return routing.to_dense_product(left, routing.Right(right), ring, setting)
    if mask is None:
        made = product.matmul(left, right, ring, setting)
    elif complement:
        made = masking.matmul_beside(left, right, from_any(mask), ring, setting)
    else:
        made = masking.matmul_at(left, right, from_any(mask), ring, setting).product
    return made.to_dense(ring.zero(made.values.dtype)) if dense else to_scipy(made)


def spmm(
    a: Any,
    x: Values,
    *,
    semiring: str = "plus_times",
    threads: int | None = None,
    cache: Path | None = None,
) -> Values:
    """Sparse A [m, k] times a numpy array x [k, n]: an array [m, n]; see `matmul`."""
    return product.spmm(from_any(a), _matrix(x), ring_named(semiring), _setting(threads, cache))


def sddmm(
    x: Values, y: Values, mask: Any, *, threads: int | None = None, cache: Path | None = None
) -> Any:
    """x [m, k] times the transpose of y [n, k] where a sparse mask [m, n] has entries: csr_array.

    The values of the mask do not matter.
    """
    setting = _setting(threads, cache)
    return to_scipy(product.sddmm(_matrix(x), _matrix(y), from_any(mask), setting))


def attention(
    q: Values,
    k: Values,
    v: Values,
    mask: Any,
    *,
    scale: float | None = None,
    threads: int | None = None,
    cache: Path | None = None,
) -> Values:
    """softmax(scale * q k^T) v over the places of an unstructured mask [m, n]: an array [m, d].

    q [m, d], k and v [n, d], of one head; scale: 1 / sqrt(d) by default. A row of the mask without
    entries gives zeros.
    """
    setting, queries = _setting(threads, cache), _matrix(q)
    scores = product.sddmm(queries, _matrix(k), from_any(mask), setting)
    weights = softmax(scores, queries.shape[1] ** -0.5 if scale is None else scale)
    return product.spmm(weights, _matrix(v), setting=setting)


def _matrix(x: Values) -> Values:
    array = np.asarray(x)
    if array.ndim != 2:
        raise SparseError(f"a dense operand of {array.ndim} dimensions", accepted="2")
    return array


@lru_cache
def _setting(threads: int | None, cache: Path | None) -> Setting:
    chosen = thread_count() if threads is None else threads
    if chosen < 1:
        raise SparseError(f"{chosen} threads", accepted="1 or more")
    return Setting(chosen, cache)


__all__ = ["SparseMatrix", "attention", "from_any", "matmul", "sddmm", "spmm", "to_scipy"]
