"""The Hadamard kernel against its f64 reference, and the reference against the matrix."""

import numpy as np
import pytest

from nybble.backends.cpu.kernels.hadamard import Hadamard
from nybble.dialects.numpy_ref.hadamard import hadamard, largest_block


@pytest.mark.parametrize("block", [2, 8, 64])
def test_reference_is_sylvesters_matrix(rng, block):
    index = np.arange(block)
    parity = [[(i & j).bit_count() % 2 for j in index.tolist()] for i in index.tolist()]
    matrix = (1 - 2 * np.array(parity)) / np.sqrt(block)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(block), atol=1e-12)
    x = rng.standard_normal((3, 2 * block))
    want = (x.reshape(3, 2, block) @ matrix).reshape(x.shape)
    np.testing.assert_allclose(hadamard(x, block), want, atol=1e-12)
    np.testing.assert_allclose(hadamard(hadamard(x, block), block), x, atol=1e-12)


def test_largest_block():
    assert [largest_block(n) for n in (1536, 576, 4096, 7)] == [512, 64, 4096, 1]


@pytest.mark.parametrize(
    ("width", "block", "lanes"),
    [
        (1536, 512, 8),
        (576, 64, 8),
        (48, 16, 16),
        (64, 4, 16),
        (96, 8, 8),
        (8192, 4096, 8),
        (8, 2, 4),
    ],
)
@pytest.mark.parametrize("rows", [1, 5])
def test_rows(run, rng, relative_error, width, block, lanes, rows):
    x = rng.standard_normal((rows, width)).astype(np.float32)
    spec = Hadamard(width, rows, block, lanes)
    for threads in (1, 3):
        out = run(spec, n=rows, threads=threads, x=x)["out"]
        assert relative_error(out[: x.size].reshape(x.shape), hadamard(x, block)) <= 1e-6
        assert np.all(np.isnan(out[x.size :]))


@pytest.mark.parametrize(
    ("width", "block", "message"),
    [(96, 3, "block 3 is no power"), (96, 64, "96 is not a multiple of 64"), (24, 8, "of 16")],
)
def test_other_shapes_are_refused(width, block, message):
    with pytest.raises(ValueError, match=message):
        Hadamard(width, 1, block, 16)
