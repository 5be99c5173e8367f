"""RMSNorm of rows and heads against the f64 reference."""

import numpy as np
import pytest

from nybble.backends.cpu.kernels.norm import RmsNorm
from nybble.dialects.numpy_ref.norm import head_rms_norm


@pytest.mark.parametrize("width", [1, 15, 16, 17, 64, 100, 576, 4096])
@pytest.mark.parametrize("rows", [1, 6])
def test_rows(run, rng, relative_error, width, rows):
    x = rng.standard_normal((rows, width)).astype(np.float32) * 5
    w = rng.standard_normal(width).astype(np.float32)
    want = head_rms_norm(x, w, 1e-5)
    for threads in (1, 2, 5):
        out = run(RmsNorm(width, rows, 1e-5), n=rows, threads=threads, x=x, w=w)["out"]
        assert relative_error(out[: x.size].reshape(x.shape), want) <= 1e-6
        assert np.all(np.isnan(out[x.size :]))


@pytest.mark.parametrize(("rows", "offset"), [(1, False), (1, True), (7, True)])
def test_heads(run, rng, relative_error, rows, offset):
    x = rng.standard_normal((rows, 3 * 80)).astype(np.float32)
    w = rng.standard_normal(80).astype(np.float32)
    spec = RmsNorm(80, rows, 1e-6, heads=3, offset=offset)
    want = head_rms_norm(x, w, 1e-6, offset=offset)
    for threads in (1, 4):
        out = run(spec, n=rows, threads=threads, x=x, w=w)["out"][: x.size]
        assert relative_error(out.reshape(x.shape), want) <= 1e-6


@pytest.mark.parametrize("lanes", [4, 8])
def test_narrow_vectors(run, rng, relative_error, lanes):
    x = rng.standard_normal((2, 50)).astype(np.float32)
    w = np.ones(50, np.float32)
    out = run(RmsNorm(50, 2, 1e-5, lanes=lanes), n=2, x=x, w=w)["out"][: x.size]
    assert relative_error(out.reshape(x.shape), head_rms_norm(x, w, 1e-5)) <= 1e-6


def test_zeros_and_tiny_rows(run):
    x = np.zeros((2, 32), np.float32)
    x[1] = 1e-40
    w = np.ones(32, np.float32)
    out = run(RmsNorm(32, 2, 1e-5), n=2, x=x, w=w)["out"][:64].reshape(2, 32)
    np.testing.assert_array_equal(out[0], 0)
    np.testing.assert_allclose(out[1], head_rms_norm(x, w, 1e-5)[1], rtol=1e-4)


def test_result_does_not_depend_on_threads(run, rng):
    x = rng.standard_normal((1, 576)).astype(np.float32)
    w = rng.standard_normal(576).astype(np.float32)
    outs = [run(RmsNorm(576, 1, 1e-5), threads=t, x=x, w=w)["out"] for t in (1, 2, 3, 64)]
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])
