"""Log-likelihood of tokens against the f64 reference."""

import numpy as np
import pytest

from nybble.backends.cpu.kernels.softmax import NegativeLogLikelihood
from nybble.dialects.numpy_ref.sample import negative_log_likelihood


@pytest.mark.parametrize("vocab", [1, 30, 64, 1000, 4099])
@pytest.mark.parametrize("scale", [0.0, 3.0, 1000.0])
def test_rows(run, rng, vocab, scale):
    logits = (rng.standard_normal((5, vocab)) * scale).astype(np.float32)
    targets = rng.integers(0, vocab, 5).astype(np.int32)
    want = negative_log_likelihood(logits, targets)
    for threads in (1, 3):
        spec = NegativeLogLikelihood(vocab, 9)
        out = run(spec, n=5, threads=threads, logits=logits, targets=targets)["out"]
        np.testing.assert_allclose(out[:5], want, rtol=2e-6, atol=2e-6)
        assert np.all(np.isnan(out[5:]))


def test_numbers_that_are_not_finite(run):
    logits = np.zeros((4, 20), np.float32)
    logits[0, 3] = -np.inf
    logits[1, 3] = -np.inf
    logits[2, 7] = np.nan
    targets = np.array([5, 3, 0, 1], np.int32)
    out = run(NegativeLogLikelihood(20, 4), n=4, logits=logits, targets=targets)["out"]
    np.testing.assert_allclose(out[[0, 3]], np.log([19, 20]), rtol=1e-6)
    assert out[1] == np.inf
    assert np.isnan(out[2])
