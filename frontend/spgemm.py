"""`nybble.spgemm`: products of sparse matrices on this machine's processors.

    c = nybble.spgemm.matmul(a, b)                       # SciPy in, SciPy out
    y = nybble.spgemm.matmul(a, b, dense=True)           # a numpy array, by the cheapest route
    d = nybble.spgemm.matmul(a, a, semiring="min_plus")
    s = nybble.spgemm.sddmm(q, k, mask)                  # q k^T where the mask has entries
    y = nybble.spgemm.relu_ffn(x, up, down)              # of pruned low-bit weights

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
from nybble.backends.cpu.spgemm.weights import PartedWeight
from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.numpy_ref.sparse import softmax
from nybble.dialects.sparse_attn import masks
from nybble.dialects.spgemm.elements import Values
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix, from_arrays
from nybble.dialects.spgemm.semiring import semiring as ring_named
from nybble.frontend.sparse_files import from_any, to_scipy

ROWS = 1024
"""Queries whose keys are looked at at a time."""


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


def linear(
    x: Any,
    weight: Weight | PartedWeight | Any,
    *,
    threads: int | None = None,
    cache: Path | None = None,
) -> Values:
    """x [tokens, in] times the transpose of a weight [out, in], f32: an array [tokens, out].

    x: a numpy array, or sparse, as after a ReLU. weight: one of a low-bit format that prunes
    (`sparse=2of4`) or has outliers (`spqr3`), a sparse matrix, or a `PartedWeight`, which is what
    the others are made into at every call. What is pruned is multiplied as sparse or filled in,
    whichever costs less. Raises SparseError for a format whose activations are transformed.
    """
    parts = _parted(weight)
    given = x if isinstance(x, np.ndarray) else from_any(x)
    if isinstance(given, np.ndarray):
        given = _matrix(given)
    return parts.multiply(given, _setting(threads, cache))


def relu_ffn(
    x: Values,
    up: Weight | PartedWeight | Any,
    down: Weight | PartedWeight | Any,
    *,
    threads: int | None = None,
    cache: Path | None = None,
) -> Values:
    """relu(x up^T) down^T of x [tokens, in]: f32 [tokens, out]; see `linear`.

    What the ReLU leaves at zero is not multiplied where that costs less.
    """
    hidden = linear(_matrix(x), up, threads=threads, cache=cache)
    active = SparseMatrix.from_dense(np.maximum(hidden, np.float32(0)))
    return linear(active, down, threads=threads, cache=cache)


def seen(mask: str, queries: int, keys: int | None = None, *, head: int = 0) -> Any:
    """The places that a mask of attention has, as a csr_array [queries, keys] of ones.

    mask: in the spelling of `sparse_attn`, such as "window(512)+sink(4)"; queries: the last ones
    of so many keys, by default all. For `sddmm`, `attention`, and `matmul(mask=)`.
    Raises SparseError for a mask that selects keys by their values, MaskError for another spelling.
    """
    parsed, count = masks.parse(mask), queries if keys is None else keys
    if parsed.selections:
        raise SparseError(f"mask '{mask}', which selects keys by values", accepted="a fixed mask")
    if not 0 <= queries <= count:
        raise SparseError(f"{queries} queries of {count} keys", accepted="no more than keys")
    parsed.check(count, head + 1)
    every = np.arange(count)
    parts = [
        masks.dense(parsed, every[first : first + ROWS], every, head + 1)[head]
        for first in range(count - queries, count, ROWS)
    ]
    counts = [part.sum(axis=1) for part in parts]
    columns = np.concatenate([np.nonzero(part)[1] for part in parts] or [every[:0]])
    ones = np.ones(len(columns), np.int8)
    made = from_arrays((queries, count), np.concatenate(counts or [every[:0]]), columns, ones)
    return to_scipy(made)


def _parted(weight: Any) -> PartedWeight:
    if isinstance(weight, PartedWeight):
        return weight
    if isinstance(weight, Weight):
        return PartedWeight.of(weight, filled=False)
    return PartedWeight.pruned(from_any(weight), filled=False)


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


__all__ = [
    "PartedWeight",
    "SparseMatrix",
    "attention",
    "from_any",
    "linear",
    "matmul",
    "relu_ffn",
    "sddmm",
    "seen",
    "spmm",
    "to_scipy",
]
