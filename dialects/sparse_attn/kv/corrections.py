"""What a page of codes leaves over: its outliers, and a low rank of the rest (GEAR).

GEAR (arXiv:2403.05527) holds a cache as codes, some outliers as they are, and two narrow matrices
whose product is near to what is left. Here a page of a head is a matrix of *lines*: channels of
keys over the page's tokens, tokens of values over the features, which is what GEAR rounds together.
From each line the largest and the smallest number are taken, the first ones where several are
equal, and the middle of both put in their place before codes are made. The rest, M, is
approximated by steps of subspace iteration (the paper's algorithm 2; Vogels et al.,
arXiv:1905.13727), from signs of Walsh functions instead of random numbers:

    U[j] = walsh(j + 1);  STEPS times:  W = orthonormal(M U^T),  U = W M;  M ~ W^T U
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

STEPS = 3
ENDS = 2
"""Outliers of a line: the largest and the smallest number."""
DEPENDENT = 1e-6
"""A vector that keeps no more of its square beside the ones before it is one of them: it is 0."""
LARGEST = 65504.0
SMALLEST = 2.0**-100
"""A square that is no larger is 0."""
F32 = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Correction:
    """Of pages of n lines of m numbers, f16.

    weights: [pages, rank, n] and lines: [pages, rank, m], whose product is added. places and
    differences: [pages, ENDS, n], where numbers of a line are, and what is added there; None
    without outliers.
    """

    weights: Halves
    lines: Halves
    places: Halves | None
    differences: Halves | None

    def added(self) -> F32:
        """What is added to the codes: f32 [pages, n, m]."""
        total = self.weights.astype(np.float32).swapaxes(1, 2) @ self.lines.astype(np.float32)
        if self.places is not None and self.differences is not None:
            for end in range(ENDS):
                at = self.places[:, end, :, None].astype(np.int64)
                found = np.take_along_axis(total, at, 2)
                new = found + self.differences[:, end, :, None].astype(np.float32)
                np.put_along_axis(total, at, new, 2)
        return total


def correction(
    matrix: F32, decoded: Callable[[F32], F32], rank: int, outliers: int
) -> tuple[F32, Correction]:
    """What codes are made of, and the correction: f32 [pages, n, m] of it.

    decoded: what the codes of such a matrix mean. outliers: at each end of a line, 0 or 1.
    """
    made, places = without_outliers(matrix) if outliers else (matrix, None)
    meant = decoded(made)
    weights, lines = low_rank(made - meant, rank)
    differences = None
    if places is not None:
        at = places.swapaxes(1, 2).astype(np.int64)
        differences = _halves(np.take_along_axis(matrix - meant, at, 2).swapaxes(1, 2))
    return made, Correction(weights, lines, places, differences)


def without_outliers(matrix: F32) -> tuple[F32, Halves]:
    """[pages, n, m] with the ends of lines at their middle, and where these were."""
    ends = matrix.argmax(axis=2), matrix.argmin(axis=2)
    top, bottom = (np.take_along_axis(matrix, at[..., None], 2) for at in ends)
    middle = (top + bottom) / np.float32(2)
    made = matrix.copy()
    for at in ends:
        np.put_along_axis(made, at[..., None], middle, 2)
    return made, np.stack(ends, axis=1).astype(np.float16)


def low_rank(matrix: F32, rank: int) -> tuple[Halves, Halves]:
    """W [pages, rank, n] and U [pages, rank, m] of [pages, n, m]."""
    pages, n, m = matrix.shape
    if not rank:
        return np.zeros((pages, 0, n), np.float16), np.zeros((pages, 0, m), np.float16)
    wide = matrix.astype(np.float64)
    lines = np.broadcast_to(walsh(rank, m), (pages, rank, m)).astype(np.float64)
    weights = np.zeros((pages, rank, n))
    for _ in range(STEPS):
        weights = _orthonormal(lines @ wide.swapaxes(1, 2))
        lines = weights @ wide
    return _halves(weights), _halves(lines)


def _halves(values: npt.NDArray[np.floating]) -> Halves:
    return np.clip(values, -LARGEST, LARGEST).astype(np.float16)


def walsh(rank: int, size: int) -> npt.NDArray[np.int64]:
    """Signs [rank, size]: of row j the parity of the bits that a place has in common with j + 1."""
    common = np.arange(size) & np.arange(1, rank + 1)[:, None]
    return 1 - 2 * (np.bitwise_count(common).astype(np.int64) & 1)


def _orthonormal(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Gram-Schmidt over axis 1 of [pages, rank, n]."""
    out = np.zeros_like(vectors)
    for j in range(vectors.shape[1]):
        one = vectors[:, j]
        before = np.square(one).sum(axis=1)
        for i in range(j):
            one = one - (one * out[:, i]).sum(axis=1)[:, None] * out[:, i]
        square = np.square(one).sum(axis=1)
        kept = (square > before * DEPENDENT) & (square > SMALLEST)
        out[:, j] = one * np.where(kept, 1 / np.sqrt(np.where(kept, square, 1.0)), 0.0)[:, None]
    return out
