"""The normalised Hadamard transform in blocks (Sylvester's construction), as a fast transform."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
FACTOR = 64


def largest_block(length: int) -> int:
    """The largest power of two that divides a length."""
    return length & -length


def matrix(size: int) -> Floats:
    """Sylvester's matrix of a power of two, of ones and minus ones: f64 [size, size]."""
    found = np.ones((1, 1))
    while len(found) < size:
        found = np.block([[found, found], [found, -found]])
    return found


def hadamard(values: npt.NDArray[np.floating], block: int) -> Floats:
    """Transform every run of `block` values along the last axis; its own inverse.

    values: [.., k] with `block`, a power of two, dividing k. f64 of the same shape:
    `y[i] = sum_j (-1)**popcount(i & j) x[j] / sqrt(block)` in each run, by products with matrices
    of at most FACTOR rows, as `H(a * b) = H(a) x H(b)`.
    """
    within = min(block, FACTOR)
    runs = values.astype(np.float64).reshape(-1, within) @ matrix(within)
    done = within
    while done < block:
        size = min(block // done, FACTOR)
        runs = matrix(size) @ runs.reshape(-1, size, done)
        done *= size
    return (runs / np.sqrt(block)).reshape(values.shape)
