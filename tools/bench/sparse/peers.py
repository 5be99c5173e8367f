"""SciPy, MKL, SuiteSparse:GraphBLAS and torch as multipliers of sparse matrices.

Each gets the operands in its own form, made beforehand, and returns the product in it.
"""

import os
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, files
from typing import Any

from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.frontend.sparse_files import to_scipy
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.peers.libraries import INSTALL
from nybble.tools.bench.peers.optional import package

Product = Callable[[], object]
Maker = Callable[[SparseMatrix, SparseMatrix, int], Product]


def scipy(a: SparseMatrix, b: SparseMatrix, threads: int) -> Product:
    """SciPy, which has one thread."""
    left, right = to_scipy(a), to_scipy(b)
    return lambda: left @ right


def mkl(a: SparseMatrix, b: SparseMatrix, threads: int) -> Product:
    """MKL through sparse_dot_mkl."""
    _show_mkl()
    module = package("sparse_dot_mkl", "MKL", INSTALL)
    import scipy.sparse as sparse

    left, right = (sparse.csr_matrix(to_scipy(one)) for one in (a, b))

    def run() -> object:
        module.mkl_set_num_threads(threads)
        return module.dot_product_mkl(left, right)

    return run


def graphblas(a: SparseMatrix, b: SparseMatrix, threads: int) -> Product:
    """SuiteSparse:GraphBLAS, whose pending work is waited for."""
    module = package("graphblas", "GraphBLAS", INSTALL)
    left, right = (module.io.from_scipy_sparse(to_scipy(one)) for one in (a, b))

    def run() -> object:
        module.ss.config["nthreads"] = threads
        found = module.semiring.plus_times(left @ right).new()
        found.wait()
        return found

    return run


def torch(a: SparseMatrix, b: SparseMatrix, threads: int) -> Product:
    """torch's sparse_csr layout."""
    module = package("torch", "torch", INSTALL)

    def tensor(one: SparseMatrix) -> Any:
        arrays = [module.from_numpy(array) for array in (one.indptr, one.indices, one.values)]
        return module.sparse_csr_tensor(*arrays, size=one.shape)

    left, right = tensor(a), tensor(b)

    def run() -> object:
        module.set_num_threads(threads)
        return left @ right

    return run


PEERS: Mapping[str, Maker] = {"scipy": scipy, "mkl": mkl, "graphblas": graphblas, "torch": torch}


def _show_mkl() -> None:
    """Tells sparse_dot_mkl where the mkl wheel put its library, unless the user did."""
    try:
        found = [one for one in files("mkl") or () if one.name.startswith("libmkl_rt.so")]
    except PackageNotFoundError:
        found = []
    if not found and "MKL_RT" not in os.environ:
        raise UnavailableError("MKL is not installed", accepted=INSTALL)
    if found:
        os.environ.setdefault("MKL_RT", str(found[0].locate()))
