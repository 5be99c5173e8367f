"""Pruned weights, outliers and sparse activations through sparse kernels, against f64 products."""

import numpy as np
import pytest

from nybble.backends.cpu.spgemm.routing import Route
from nybble.backends.cpu.spgemm.weights import PartedWeight, kept_values, outlier_values
from nybble.dialects.lowbit import formats
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.layouts import Layout
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.packed import pack, unpack

SPECS = (
    "i4:g=32:s=f16:sparse=2of4",
    "u4:g=32:s=f16:z=min.f16:sparse=2of4",
    "f16:sparse=csr.100",
    "i8:g=32:s=f16:sparse=bitmap.250",
    "f16:sparse=bcsr8x4.125",
    "spqr3",
)


def normal(rows, cols, seed=1):
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)


def quantized(spec, rows=48, cols=128):
    return formats.get(spec).quantize(normal(rows, cols))


def active(share, rows=7, cols=128):
    x = normal(rows, cols, 2)
    return np.where(np.random.default_rng(3).random(x.shape) < share, np.abs(x), np.float32(0))


def close(found, x, weight):
    exact = x.astype(np.float64) @ weight.dequantize().astype(np.float64).T
    bound = np.abs(x).astype(np.float64) @ np.abs(weight.dequantize()).astype(np.float64).T
    assert found.dtype == np.float32
    assert (np.abs(found - exact) <= bound * 2e-5 + 1e-6).all()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_every_format_and_route(spec, share):
    weight = quantized(spec)
    x = active(share)
    parts = PartedWeight.of(weight)
    assert (parts.outliers is not None) == (spec == "spqr3")
    for given, routes in (
        (x, (None, Route.SPMM, Route.DENSE)),
        (SparseMatrix.from_dense(x), (None, *Route)),
    ):
        for route in routes:
            close(parts.multiply(given, route=route), x, weight)


def test_outliers_are_what_a_format_adds():
    weight = quantized("spqr3")
    found = outlier_values(weight)
    assert found is not None
    assert found.nnz == len(weight.outliers.values) > 0
    rest = PartedWeight.of(weight).rest
    np.testing.assert_allclose(rest.T + found.to_dense(), weight.dequantize(), atol=1e-6)
    assert outlier_values(quantized(SPECS[0])) is None


def test_two_of_four_is_a_layout_of_the_dialect():
    kept = kept_values(quantized(SPECS[0]))
    assert np.diff(kept.indptr).tolist() == [64] * 48
    packed = pack(kept, Layout.parse("nm(2:4)"))
    np.testing.assert_array_equal(unpack(packed).to_dense(), kept.to_dense())


def test_the_route_follows_the_weight_and_the_activations():
    dense = active(1, 64, 512)
    sparse = SparseMatrix.from_dense(active(0.02, 64, 512))
    few = PartedWeight.of(quantized("f16:sparse=csr.20", 256, 512))
    many = PartedWeight.of(quantized("f16:sparse=csr.900", 256, 512))
    assert few.route(dense) is Route.SPMM
    assert many.route(dense) is Route.DENSE
    assert few.route(sparse) is Route.SPGEMM
    assert many.route(sparse) is Route.SPMM
    assert PartedWeight.of(quantized("spqr3")).route(dense) is Route.DENSE
    bad = dense.copy()
    bad[0, 0] = np.inf
    assert many.route(bad) is Route.SPMM  # an infinity never meets a weight that is not there


def test_what_does_not_fit_is_refused():
    parts = PartedWeight.of(quantized(SPECS[0]))
    with pytest.raises(SparseError, match=r"activations float64 .*float32 \(tokens, 128\)"):
        parts.multiply(np.ones((2, 128)))
    with pytest.raises(SparseError, match=r"activations float32 \(2, 3\)"):
        parts.multiply(np.ones((2, 3), np.float32))
    with pytest.raises(SparseError, match="route spgemm of dense"):
        parts.multiply(active(1), route=Route.SPGEMM)
    with pytest.raises(SparseError, match="prunes nothing"):
        kept_values(quantized("q4_0"))
    rotated = formats.get("i4:g=32:s=f16:fix=hadamard.32").quantize(normal(8, 128))
    with pytest.raises(SparseError, match="no rotation"):
        PartedWeight.of(rotated)
