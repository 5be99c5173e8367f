"""Sampling: the token is exactly the reference's, and the reference samples what it says."""

import numpy as np
import pytest

from nybble.backends.cpu.kernels.sample import Sample
from nybble.dialects.numpy_ref.sample import (
    SamplingOptions,
    argmax,
    keep_top_k,
    keep_top_p,
    random_bits,
    sample,
    token_weights,
)


def choose(run, logits, options, position, threads=1):
    out = run(
        Sample(logits.size),
        threads=threads,
        logits=logits,
        temperature=np.float32([options.temperature]),
        top_k=np.int32([options.top_k]),
        top_p=np.float32([options.top_p]),
        seed=np.int64([options.seed]),
        position=np.int64([position]),
    )
    return int(out["token"][0])


@pytest.mark.parametrize("vocab", [1, 17, 1000, 4096])
@pytest.mark.parametrize("spread", [0.0, 0.3, 5.0])
def test_token_is_the_reference_s(run, rng, vocab, spread):
    for position in range(40):
        logits = (rng.standard_normal(vocab) * spread).astype(np.float32)
        if position % 3 == 0:
            logits = np.round(logits)  # ties
        if position % 5 == 0:
            logits[rng.integers(0, vocab, 2)] = [np.nan, -np.inf]
        options = SamplingOptions(
            float(rng.choice([0.0, 0.5, 1.0, 1e31])),
            int(rng.choice([0, 1, 7, 40, vocab, -3])),
            float(rng.choice([-1.0, 0.0, 0.3, 0.95, 1.0, np.nan])),
            int(rng.integers(-(2**63), 2**63 - 1)),
        )
        assert choose(run, logits, options, position) == sample(logits, options, position), options


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, 1e-7])
def test_cold_is_greedy_and_first_wins(run, temperature):
    logits = np.zeros(50, np.float32)
    logits[[20, 30, 49]] = 2.5
    options = SamplingOptions(temperature, seed=3)
    assert choose(run, logits, options, 5) == 20 == sample(logits, options, 5)


def test_signed_zeros_tie(run):
    logits = np.array([-1.0, -0.0, 0.0], np.float32)
    assert choose(run, logits, SamplingOptions(), 0) == 1 == argmax(logits)


@pytest.mark.parametrize(
    ("logits", "want"),
    [
        ([np.nan, 1, 2, np.nan], 2),
        ([np.nan, np.nan, np.nan, np.nan], 0),
        ([-np.inf, -np.inf, -np.inf, -np.inf], 0),
        ([0, np.inf, np.inf, 1], 1),
        ([np.nan, -np.inf, -3, -np.inf], 2),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite(run, logits, want, temperature):
    logits = np.array(logits, np.float32)
    options = SamplingOptions(temperature, seed=1)
    assert choose(run, logits, options, 0) == want == sample(logits, options, 0)


def test_only_the_first_thread_writes(run, rng):
    logits = rng.standard_normal(100).astype(np.float32)
    options = SamplingOptions(1.0, 10, 0.9, 5)
    assert choose(run, logits, options, 9, threads=3) == sample(logits, options, 9)


def test_reference_follows_the_distribution():
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125], np.float32))
    tokens = [sample(logits, SamplingOptions(1.0, seed=11), p) for p in range(4000)]
    share = np.bincount(tokens, minlength=4) / 4000
    np.testing.assert_allclose(share, np.exp(logits), atol=0.03)


def test_filters_of_the_reference():
    logits = np.log(np.array([0.1, 0.4, 0.2, 0.2, 0.1], np.float32))
    weights = token_weights(logits, 1.0)
    np.testing.assert_allclose(weights / weights.sum(), np.exp(logits), rtol=1e-6)
    assert [*np.nonzero(keep_top_k(logits, weights, 2))[0]] == [1, 2]
    assert [*np.nonzero(keep_top_p(weights, 0.55))[0]] == [1, 2]
    assert [*np.nonzero(keep_top_p(weights, 0.7))[0]] == [1, 2, 3]
    assert [*np.nonzero(keep_top_p(weights, 0.0))[0]] == [1]


def test_random_bits_are_splitmix64():
    # The sequence of java.util.SplittableRandom and of Vigna's splitmix64.c for the seed 1234567.
    want = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [random_bits(1234567, i) for i in range(3)] == want
