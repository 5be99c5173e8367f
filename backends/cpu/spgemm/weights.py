"""Products of activations with a weight of which something is sparse: what is kept, or outliers.

W [out, in] of a low-bit format is taken apart once, into kept values (N:M, csr, bitmap, blocks) or
a dense rest, and outliers (SpQR, arXiv 2306.03078). Activations, which may be sparse themselves
(ReLU), go through each part by its cheapest route; outliers are added as sparse times dense.
"""

from dataclasses import dataclass, replace

import numpy as np

from nybble.backends.cpu.spgemm import product, routing
from nybble.backends.cpu.spgemm.product import DEFAULT, Setting
from nybble.backends.cpu.spgemm.routing import PLUS_TIMES, Right, Route
from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.spgemm.elements import Values
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix, from_arrays


def kept_values(weight: Weight) -> SparseMatrix:
    """f32 [out, in]: the kept values of a sparse format, a stored zero among them, without what is
    added to them; raises SparseError for a format that prunes nothing.
    """
    if weight.kept is None:
        raise SparseError(f"format '{weight.spec}', which prunes nothing", accepted="sparse=...")
    values = replace(weight, outliers=None, low_rank=None).in_its_basis()
    rows, cols = np.nonzero(weight.kept)
    counts = np.bincount(rows, minlength=weight.shape[0])
    return from_arrays(weight.shape, counts, cols, values[rows, cols])


def outlier_values(weight: Weight) -> SparseMatrix | None:
    """f32 [out, in]: what is added at single places, or None."""
    if weight.outliers is None:
        return None
    found = weight.outliers
    counts = np.bincount(found.rows, minlength=weight.shape[0])
    return from_arrays(weight.shape, counts, found.cols, found.values)


@dataclass(frozen=True)
class PartedWeight:
    """W [out, in], f32. kept: its values if it is pruned, and turned their transpose; else rest
    [in, out] has all but the outliers.
    """

    kept: SparseMatrix | None
    turned: Right | None
    rest: Values | None
    outliers: SparseMatrix | None

    @staticmethod
    def of(weight: Weight, filled: bool = True) -> "PartedWeight":
        """The parts of a weight; filled: whether the dense form of a pruned one is kept as well.

        Raises SparseError for a format whose activations are transformed, or with low-rank factors.
        """
        if (
            weight.rotation is not None
            or weight.smoothing is not None
            or weight.low_rank is not None
        ):
            raise SparseError(
                f"format '{weight.spec}'", accepted="no rotation, smoothing or low-rank factors"
            )
        outliers = outlier_values(weight)
        if weight.kept is None:
            rest = replace(weight, outliers=None).in_its_basis()
            return PartedWeight(None, None, np.ascontiguousarray(rest.T), outliers)
        return replace(PartedWeight.pruned(kept_values(weight), filled), outliers=outliers)

    @staticmethod
    def pruned(kept: SparseMatrix, filled: bool = True) -> "PartedWeight":
        """A weight [out, in] that is nothing but these values; see `of`."""
        turned = kept.transposed()
        return PartedWeight(kept, Right.prepared(turned) if filled else Right(turned), None, None)

    def route(self, x: SparseMatrix | Values) -> Route:
        """How the part that is no outliers is multiplied; see `multiply`."""
        if self.kept is None or self.turned is None:
            return Route.DENSE
        if isinstance(x, SparseMatrix):
            return routing.choose(x, self.turned, PLUS_TIMES)
        return routing.choose_dense_left(x, self.kept, self.turned)

    def multiply(
        self, x: SparseMatrix | Values, setting: Setting = DEFAULT, route: Route | None = None
    ) -> Values:
        """x [tokens, in] f32, sparse or dense, times the transpose of W: f32 [tokens, out].

        route: of a pruned weight, `self.route(x)` by default: SPGEMM takes both sparse, SPMM one of
        them (x if it is sparse, else W), DENSE none. Raises SparseError for a route that x has not.
        """
        values = x.values if isinstance(x, SparseMatrix) else x
        if x.shape[1] != self.depth or values.dtype != np.float32:
            raise SparseError(
                f"activations {values.dtype} {x.shape}", accepted=f"float32 (tokens, {self.depth})"
            )
        made = self._main(x, setting, route or self.route(x))
        if self.outliers is None or not self.outliers.nnz:
            return made
        dense = x.to_dense() if isinstance(x, SparseMatrix) else x
        added = product.spmm(self.outliers, np.ascontiguousarray(dense.T), setting=setting)
        return made + added.T

    @property
    def depth(self) -> int:
        """The columns of W."""
        if self.kept is not None:
            return self.kept.shape[1]
        assert self.rest is not None
        return self.rest.shape[0]

    def _main(self, x: SparseMatrix | Values, setting: Setting, route: Route) -> Values:
        is_sparse = isinstance(x, SparseMatrix)
        if self.kept is None or self.turned is None:
            assert self.rest is not None
            if is_sparse:
                return product.spmm(x, self.rest, setting=setting)
            return routing.multiply_dense(x, self.rest, setting)
        if is_sparse:
            return routing.to_dense_product(x, self.turned, PLUS_TIMES, setting, route)
        if route is Route.SPGEMM:
            raise SparseError("route spgemm of dense activations", accepted="spmm, dense")
        if route is Route.DENSE:
            return routing.multiply_dense(x, self.turned.dense(), setting)
        return product.spmm(self.kept, np.ascontiguousarray(x.T), setting=setting).T
