"""Choosing the next token, and the log-likelihood of given tokens.

Sampling is defined in integers, so that the choice does not depend on the order of a sum: the
weight of a token is `trunc(2^30 * 2^t)`, `t = (logit - max) * (log2(e) / temperature)`, where every
f32 operation is rounded on its own. Random numbers are the splitmix64 output for (seed, position).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nybble.dialects.numpy_ref.arrays import F32, I32

COLDEST = 1e-6
"""A temperature below this (or not a number) means greedy."""
HOTTEST = np.float32(1e30)
"""A temperature above this is taken as this."""

LOG2_E = np.float32(1.4426950408889634)
LOWEST_POWER = np.float32(-64.0)
ROUNDING_MAGIC = np.float32(12582912.0)
WEIGHT_BITS = 30
EXP2_COEFFICIENTS = tuple(
    np.float32(c)
    for c in (1.0, 0.6931472, 0.24022648, 0.055503324, 0.009618437, 0.0013398875, 0.0001535336)
)
"""2^f on [-0.5, 0.5], lowest power first: minimax, within 1e-7 relative when evaluated in f32."""

GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
MASK_64 = (1 << 64) - 1


@dataclass(frozen=True)
class SamplingOptions:
    """temperature 0 is greedy; top_k 0 and top_p 1 are off; seed is any 64-bit integer."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


def argmax(logits: F32) -> int:
    """Return the first index of the largest logit; NaN counts as -inf (all NaN: index 0)."""
    return int(np.argmax(np.where(np.isnan(logits), -np.inf, logits)))


def random_bits(seed: int, position: int) -> int:
    """Return 64 random bits for a position (Steele et al. 2014, splitmix64, counter form)."""
    z = (seed + (position + 1) * GOLDEN) & MASK_64
    z = ((z ^ (z >> 30)) * MIX_1) & MASK_64
    z = ((z ^ (z >> 27)) * MIX_2) & MASK_64
    return z ^ (z >> 31)


def token_weights(logits: F32, temperature: float) -> NDArray[np.int64]:
    """Return the integer weight of every token (largest 2^30), for finite maximum and T > 0."""
    clean = np.where(np.isnan(logits), np.float32(-np.inf), logits).astype(np.float32)
    rate = LOG2_E / min(np.float32(temperature), HOTTEST)
    with np.errstate(over="ignore"):
        power = np.maximum((clean - clean.max()) * rate, LOWEST_POWER)
    whole = (power + ROUNDING_MAGIC) - ROUNDING_MAGIC
    rest = power - whole
    value = np.full_like(rest, EXP2_COEFFICIENTS[-1])
    for coefficient in EXP2_COEFFICIENTS[-2::-1]:
        value = value * rest + coefficient
    return np.ldexp(value, whole.astype(np.int32) + WEIGHT_BITS).astype(np.int64)


def keep_top_k(logits: F32, weights: NDArray[np.int64], top_k: int) -> NDArray[np.int64]:
    """Zero all but the k largest logits (ties: the lower index stays); k <= 0 keeps all."""
    if top_k <= 0 or top_k >= logits.size:
        return weights
    clean = np.where(np.isnan(logits), -np.inf, logits)
    kept = np.argsort(-clean, kind="stable")[:top_k]
    out = np.zeros_like(weights)
    out[kept] = weights[kept]
    return out


def keep_top_p(weights: NDArray[np.int64], top_p: float) -> NDArray[np.int64]:
    """Keep the fewest tokens, by falling weight (ties: lower index), whose mass reaches top_p."""
    total = int(weights.sum())
    if not top_p < 1.0:
        return weights
    target = max(1, int(np.float64(total) * np.float64(max(np.float32(top_p), np.float32(0)))))
    order = np.argsort(-weights, kind="stable")
    mass = np.cumsum(weights[order])
    kept = order[: int(np.searchsorted(mass, target)) + 1]
    out = np.zeros_like(weights)
    out[kept] = weights[kept]
    return out


def sample(logits: F32, options: SamplingOptions, position: int) -> int:
    """Choose the token for absolute position `position` from logits f32 [vocab].

    Order: temperature, top-k, top-p. NaN logits count as -inf; if the largest logit is infinite,
    or the temperature is below COLDEST, the choice is `argmax`.
    """
    best = argmax(logits)
    if not options.temperature >= COLDEST or not np.isfinite(logits[best]):
        return best
    weights = token_weights(logits, options.temperature)
    weights = keep_top_p(keep_top_k(logits, weights, options.top_k), options.top_p)
    threshold = (random_bits(options.seed, position) * int(weights.sum())) >> 64
    return int(np.argmax(np.cumsum(weights) > threshold))


def negative_log_likelihood(logits: F32, targets: I32) -> F32:
    """Return log(sum(exp(row))) - row[target], f32 [n], for logits [n, vocab], targets i32 [n]."""
    wide = logits.astype(np.float64)
    peak = wide.max(axis=1)
    total = np.log(np.exp(wide - peak[:, None]).sum(axis=1)) + peak
    return (total - wide[np.arange(wide.shape[0]), targets]).astype(np.float32)
