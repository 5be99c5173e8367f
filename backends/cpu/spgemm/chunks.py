"""Rows of a product in chunks of about equal work: what threads share, and memory is taken by."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nybble.backends.cpu.spgemm.frame import Limits
from nybble.backends.cpu.spgemm.kernels import kernels, launch
from nybble.backends.cpu.spgemm.spec import Spec
from nybble.backends.cpu.spgemm.structure import CHUNK, TOTALS
from nybble.dialects.spgemm.matrix import SparseMatrix

LIMITS = Limits()
FEW = 1 << 15
"""Entries of A that one thread goes through before another is awake."""
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Setting:
    """threads: at most so many; folder: a cache of object code; limits: see Limits."""

    threads: int = 1
    folder: Path | None = None
    limits: Limits = LIMITS


DEFAULT = Setting()


@dataclass(frozen=True)
class Chunks:
    """firsts: rows that chunks begin with, and their end, i64 [chunks + 1]; bounds: the most
    entries of each one's result, and work, i64 [chunks]; longest: the most products of a row.
    """

    firsts: Ints
    bounds: Ints
    work: Ints
    longest: int

    def shares(self, threads: int) -> Ints:
        """Rows that threads begin with, and the end: i64 [threads + 1], of about equal work."""
        ends = np.concatenate(([0], np.cumsum(self.work)))
        wanted = int(ends[-1]) * np.arange(threads + 1) // threads
        return self.firsts[np.searchsorted(ends, wanted)]

    def stretches(self, most: int) -> Iterator["Chunks"]:
        """Runs of chunks whose results have at most so many entries, or are one chunk."""
        if len(self.bounds) and int(self.bounds.sum()) <= most:
            yield self
            return
        ends = np.cumsum(self.bounds)
        first = 0
        while first < len(ends):
            before = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + most, "right")))
            part = slice(first, last)
            firsts = self.firsts[first : last + 1]
            yield Chunks(firsts, self.bounds[part], self.work[part], self.longest)
            first = last


def cut(
    a: SparseMatrix,
    b: SparseMatrix,
    spec: Spec,
    setting: Setting,
    mask: SparseMatrix | None = None,
) -> Chunks:
    """The rows of A B, operands of one index type, in chunks; mask: where results are wanted."""
    threads = setting.threads if a.nnz > FEW else 1
    rows = _by_entries(a, threads)
    limits = np.array([b.shape[1], setting.limits.room, setting.limits.work])
    chunks = np.empty((a.shape[0], len(CHUNK)), np.int64)
    totals = np.zeros((threads, len(TOTALS)), np.int64)
    starts = (a.indptr, a.indices, b.indptr, *(() if mask is None else (mask.indptr,)))
    kernel = "cut" if mask is None else "cut_at"
    arrays = (*starts, limits, rows, chunks, totals)
    launch(kernels(spec, setting.folder), kernel, arrays, threads)
    counts = totals[:, 0].tolist()
    made = np.concatenate(
        [chunks[row : row + count] for row, count in zip(rows, counts, strict=False)]
    )
    firsts = np.append(made[:, 0], a.shape[0])
    return Chunks(firsts, made[:, 1], made[:, 2], int(totals[:, 1].max()))


def _by_entries(a: SparseMatrix, threads: int) -> Ints:
    """Rows that threads begin with, and the end, of about as many entries of A each."""
    if threads == 1:
        return np.array([0, a.shape[0]])
    wanted = a.nnz * np.arange(threads + 1) // threads
    rows = np.searchsorted(a.indptr, wanted.astype(a.indptr.dtype)).astype(np.int64)
    rows[0], rows[-1] = 0, a.shape[0]
    return rows
