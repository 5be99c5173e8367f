"""Changes of basis of the contracted dimension: Hadamard rotation and smoothing vectors.

A weight in another basis multiplies activations in that basis: `x Wt = (x R) (W R)t` for an
orthogonal R, and `x Wt = (x diag(v)) (W diag(1/v))t`.
"""

import numpy as np

from nybble.dialects.lowbit.formats.arrays import F32


def rotate(values: F32, size: int) -> F32:
    """f32 [rows, cols] times the block-diagonal matrix of orthonormal Hadamard blocks [size, size].

    Each block has Sylvester's order: entry (i, j) is (-1) ** popcount(i & j) / sqrt(size). It is
    its own inverse. Computed in f64. size: a power of two that divides cols.
    """
    work = values.astype(np.float64)
    step = 1
    while step < size:
        pairs = work.reshape(-1, 2, step)
        work = np.stack((pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]), axis=1)
        step *= 2
    return (work.reshape(values.shape) / np.sqrt(size)).astype(np.float32)


def smoothing_vector(values: F32, activations: F32 | None) -> F32:
    """What columns are divided by, f32 [cols]: SmoothQuant's factors with alpha = 1/2.

    `v = sqrt(max|W_k| / max|x_k|)` (arXiv 2211.10438; SmoothQuant+, arXiv 2312.03788, searches
    alpha). activations: f32 [cols], the largest magnitude of each input; None takes them equal,
    which evens out the columns of W. Columns of zeros, and factors that are not normal numbers,
    get the median of the others (1 without others).
    """
    if not values.shape[0]:
        return np.ones(values.shape[1], np.float32)
    wide = np.abs(values).max(axis=0).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        vector = np.sqrt(wide / (1.0 if activations is None else activations))
    vector = vector.astype(np.float32)
    usable = np.isfinite(vector) & (vector >= np.finfo(np.float32).tiny)
    typical = np.median(vector[usable]) if usable.any() else np.float32(1)
    return np.where(usable, vector, typical).astype(np.float32)
