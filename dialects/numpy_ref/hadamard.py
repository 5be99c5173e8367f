"""The normalised Hadamard transform in blocks (Sylvester's construction), as a fast transform."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def largest_block(length: int) -> int:
    """The largest power of two that divides a length."""
    return length & -length


def hadamard(values: npt.NDArray[np.floating], block: int) -> Floats:
    """Transform every run of `block` values along the last axis; its own inverse.

    values: [.., k] with `block`, a power of two, dividing k. f64 of the same shape:
    `y[i] = sum_j (-1)**popcount(i & j) x[j] / sqrt(block)` in each run.
    """
    runs = values.astype(np.float64).reshape(-1, block)
    half = 1
    while half < block:
        pairs = runs.reshape(-1, block // (2 * half), 2, half)
        runs = np.concatenate(
            [pairs[:, :, :1] + pairs[:, :, 1:], pairs[:, :, :1] - pairs[:, :, 1:]], axis=2
        ).reshape(-1, block)
        half *= 2
    return (runs / np.sqrt(block)).reshape(values.shape)
