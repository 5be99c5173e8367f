"""The rates of a machine, fitted: seconds as a sum of the analytic terms, each times a factor.

`seconds = sum over terms of factor * term + constant`, with factors that are not negative, for one
token and for many of each family. It is a straight line through what is understood, so it holds far
from what was measured; trees then learn what it leaves. The fit minimises relative errors by
multiplicative updates (Lee and Seung, NIPS 2000), a few times with less weight on what was
overestimated, which pulls it from the mean towards the median.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.costmodel.features.estimate import TERMS

F64 = npt.NDArray[np.float64]
FEWEST = 8
"""Measurements of a family from which rates are fitted."""
ROUNDS, STEPS = 5, 1500
CALL_SECONDS = 1e-6


def kind_of(family: str, tokens: int) -> str:
    """What shares its factors: a family, for one token or for many."""
    return f"{family}/{'one' if tokens == 1 else 'many'}"


@dataclass(frozen=True)
class Calibration:
    """Kind (see `kind_of`) -> a factor for each of TERMS, and for CALL_SECONDS."""

    factors: Mapping[str, tuple[float, ...]]

    def seconds(self, kind: str, terms: F64, analytic: F64) -> F64:
        """Times of rows of terms, f64 [n, len(TERMS)]; the analytic ones of an unknown kind."""
        found = self.factors.get(kind)
        if found is None:
            return analytic
        return terms @ np.array(found[:-1]) + found[-1] * CALL_SECONDS


def calibrate(kinds: Sequence[str], terms: F64, seconds: F64) -> Calibration:
    """The factors that fit some measurements."""
    named = np.array(kinds)
    factors: dict[str, tuple[float, ...]] = {}
    for kind in dict.fromkeys(kinds):
        own = named == kind
        if own.sum() >= FEWEST:
            factors[kind] = _fit(terms[own], seconds[own])
    return Calibration(factors)


def _fit(terms: F64, seconds: F64) -> tuple[float, ...]:
    columns = np.hstack([terms, np.full((len(terms), 1), CALL_SECONDS)])
    weights = 1.0 / seconds
    factors = np.ones(len(TERMS) + 1)
    for _ in range(ROUNDS):
        scaled = columns * weights[:, None]
        gram, wanted = scaled.T @ scaled, scaled.T @ (seconds * weights)
        for _ in range(STEPS):
            factors *= wanted / np.maximum(gram @ factors, 1e-12)
        predicted = columns @ factors
        over = np.maximum(predicted / seconds, 1.0)
        weights = 1.0 / (seconds * np.sqrt(over))
    return tuple(float(f"{factor:.5g}") for factor in factors)
