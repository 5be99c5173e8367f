"""Pairs of sparse matrices, from seeds: graphs, grids, masks, and pruned weights under activations.

Values are whole numbers from 1 to 8, so that every order of addition gives the same sums.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nybble.dialects.spgemm.matrix import SparseMatrix, from_arrays

GRAPH500 = (0.57, 0.19, 0.19)
"""Probabilities of three quadrants: the Graph500 benchmark, specification 2.0, section 3.1."""
MILD = (0.45, 0.22, 0.22)
UNIFORM = (0.25, 0.25, 0.25)
SKEW = 0.7
"""Exponent of how often neurons are active, by rank (ReLU models, arXiv:2310.04564): assumed."""

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Problem:
    """A B; prunes: whether B is a weight and A its activations, and the result is to be dense."""

    a: SparseMatrix
    b: SparseMatrix
    weight: bool = False

    @property
    def products(self) -> int:
        """Multiplications of stored entries."""
        return int(np.diff(self.b.indptr)[self.a.indices].sum())


@dataclass(frozen=True)
class Workload:
    """make: seed -> the problem."""

    name: str
    make: Callable[[int], Problem]


def from_places(
    shape: tuple[int, int], keys: NDArray[np.int64], seed: int, dtype: DTypeLike = np.float64
) -> SparseMatrix:
    """Entries at ascending places row * columns + column."""
    rows, columns = np.divmod(keys, max(1, shape[1]))
    values = np.random.default_rng(seed).integers(1, 9, len(keys)).astype(dtype)
    return from_arrays(shape, np.bincount(rows, minlength=shape[0]), columns, values)


def rmat(scale: int, edges: int, chances: tuple[float, float, float], seed: int) -> SparseMatrix:
    """2^scale nodes, at most so many edges: R-MAT (Chakrabarti, Zhan, Faloutsos, SDM 2004)."""
    rng = np.random.default_rng(seed)
    a, b, c = chances
    rows, columns = np.zeros(edges, np.int64), np.zeros(edges, np.int64)
    for _ in range(scale):
        drawn = rng.random(edges)
        right = ((drawn >= a) & (drawn < a + b)) | (drawn >= a + b + c)
        rows, columns = 2 * rows + (drawn >= a + b), 2 * columns + right
    size = 1 << scale
    return from_places((size, size), np.unique(rows * size + columns), seed)


def banded(size: int, width: int, seed: int) -> SparseMatrix:
    """Entries at most `width` from the diagonal."""
    places = np.arange(size)[:, None] + np.arange(-width, width + 1)
    inside = (places >= 0) & (places < size)
    keys = np.arange(size)[:, None] * size + places
    return from_places((size, size), keys[inside], seed)


def hub(size: int, entries: int, seed: int) -> SparseMatrix:
    """Power-law rows, and one row and one column that are full to a quarter."""
    rng = np.random.default_rng(seed)
    weight = np.arange(1, size + 1) ** -0.8
    rows = rng.choice(size, entries, p=weight / weight.sum())
    columns = rng.integers(0, size, entries)
    quarter = rng.choice(size, size // 4, replace=False)
    keys = np.concatenate((rows * size + columns, quarter, quarter * size))
    return from_places((size, size), np.unique(keys), seed)


def empty_rows(size: int, entries: int, seed: int) -> SparseMatrix:
    """Nine rows of ten have no entry."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(0, size // 10, entries) * 10, rng.integers(0, size, entries)
    return from_places((size, size), np.unique(rows * size + columns), seed)


def block_mask(size: int, block: int, recent: int, seed: int) -> SparseMatrix:
    """Causal blocks: those of the last `recent`, the first, and a random one."""
    rng = np.random.default_rng(seed)
    count = size // block
    row, column = np.arange(count)[:, None], np.arange(count)
    seen = (column <= row) & ((column > row - recent) | (column == 0))
    seen[np.arange(count), rng.integers(0, np.arange(count) + 1)] = True
    bits = np.kron(seen, np.ones((block, block), np.bool_)) & np.tri(size, dtype=np.bool_)
    return from_places((size, size), np.flatnonzero(bits), seed)


def activations(tokens: int, neurons: int, share: float, seed: int) -> SparseMatrix:
    """Of every token so large a share of neurons is active, some neurons far more than others."""
    rng = np.random.default_rng(seed)
    weight = np.arange(1, neurons + 1) ** -SKEW
    chance = rng.permutation(np.minimum(weight / weight.mean() * share, 1.0))
    bits = rng.random((tokens, neurons)) < chance
    return from_places(bits.shape, np.flatnonzero(bits), seed, np.float32)


def pruned(rows: int, columns: int, sparsity: float, seed: int) -> SparseMatrix:
    """A weight with so large a share of zeros, anywhere."""
    bits = np.random.default_rng(seed).random((rows, columns)) >= sparsity
    return from_places(bits.shape, np.flatnonzero(bits), seed, np.float32)


def _square(make: Callable[..., SparseMatrix], *sizes: object) -> Callable[[int], Problem]:
    def made(seed: int) -> Problem:
        matrix = make(*sizes, seed)
        return Problem(matrix, matrix)

    return made


def _weight(shape: tuple[int, int, int], share: float, sparsity: float, seed: int) -> Problem:
    tokens, neurons, features = shape
    return Problem(
        activations(tokens, neurons, share, seed),
        pruned(neurons, features, sparsity, seed + 1),
        weight=True,
    )


def workloads(size: str) -> Mapping[str, Workload]:
    """By name; size: "full", or "small" for a look at it."""
    small = size == "small"
    scale, ffn = (8, (16, 256, 128)) if small else (13, (128, 4096, 1536))
    nodes = 1 << scale
    made: dict[str, Callable[[int], Problem]] = {
        "rmat-graph500": _square(rmat, scale, 16 * nodes, GRAPH500),
        "rmat-mild": _square(rmat, scale, 16 * nodes, MILD),
        "rmat-large": _square(rmat, scale + 2, 64 * nodes, GRAPH500),
        "uniform": _square(rmat, scale, 16 * nodes, UNIFORM),
        "uniform-wide": _square(rmat, scale + 4, 4 * 16 * nodes, UNIFORM),
        "banded": _square(banded, 8 * nodes, 4),
        "hub": _square(hub, nodes, 4 * nodes),
        "empty-rows": _square(empty_rows, 4 * nodes, 4 * nodes),
        "attention-blocks": _square(block_mask, nodes // 4, 32 if not small else 8, 4),
    }
    for share in (0.01, 0.05, 0.20):
        for sparsity in (0.5, 0.8, 0.9, 0.95):
            name = f"ffn-x{share:.0%}-w{sparsity:.0%}".replace("%", "")
            made[name] = partial(_weight, ffn, share, sparsity)
    return {name: Workload(name, make) for name, make in made.items()}
