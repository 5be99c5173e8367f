"""Sparse weights as entries of the sparse processing element, and activations as its blocks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.backends.fpga.rtl.encoding import Beats, words_of
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.sparse_pe import ENTRIES, SparseSpec

I64 = NDArray[np.int64]


def sparse_beats(
    spec: SparseSpec, weights: NDArray[np.integer[Any]], activations: NDArray[np.integer[Any]]
) -> Beats:
    """Weights int8 [n, k] times activations int8 [k, tokens], as words of the ports.

    A block takes as many cycles as its fullest row among the `rows` that run together needs, at
    least one. Rows that are missing are zero. Raises RtlError for a sum that may overflow.
    """
    n, k = weights.shape
    if activations.shape != (k, spec.tokens):
        raise RtlError(
            f"activations {activations.shape} of weights {weights.shape}",
            accepted=f"[{k}, {spec.tokens}]",
        )
    most = (1 << (spec.accumulator_bits - 1)) - 1
    if k << 14 > most:
        raise RtlError(f"a sum of {k} products may overflow", accepted=f"at most {most >> 14}")
    blocks, groups = -(-k // spec.block), -(-n // spec.rows)
    wide = ((0, groups * spec.rows - n), (0, blocks * spec.block - k))
    table = np.pad(weights.astype(np.int64), wide)
    table = table.reshape(groups, spec.rows, blocks, spec.block)
    parts: list[I64] = []
    flags: list[int] = []
    for group in range(groups):
        for block in range(blocks):
            fields = _entries(spec, table[group, :, block])
            parts.append(fields.reshape(len(fields), -1))
            flags += _flags(len(fields), block == 0, block + 1 == blocks)
    entries = np.concatenate(parts)
    values, places = entries[:, 0::2], entries[:, 1::2]
    joined = (values & 255) | places << 8
    columns = np.pad(activations.astype(np.int64), ((0, wide[1][1]), (0, 0)))
    beats = columns.reshape(blocks, spec.block, spec.tokens).transpose(0, 2, 1)
    a = words_of(np.tile(beats.reshape(blocks, -1), (groups, 1)), 8)
    w = words_of(joined, spec.entry_bits)
    stored = n * k if spec.dense else np.count_nonzero(weights)
    ideal = stored / (spec.entries * spec.rows)
    return Beats(a, w, np.array(flags, np.uint32), 0, groups, ideal)


def _entries(spec: SparseSpec, block: I64) -> I64:
    """A block [rows, block] as [cycles, rows, entries, (weight, place)], zeros at the end."""
    if spec.dense:
        return np.stack([block, np.zeros_like(block)], axis=-1)[None]
    counts = np.count_nonzero(block, axis=1)
    cycles = max(1, -(-int(counts.max()) // ENTRIES))
    order = np.argsort(block == 0, axis=1, kind="stable")[:, : cycles * ENTRIES]
    values = np.take_along_axis(block, order, axis=1)
    pairs = np.stack([values, order], axis=-1).reshape(len(block), cycles, ENTRIES, 2)
    return pairs.transpose(1, 0, 2, 3)


def _flags(cycles: int, first: bool, last: bool) -> list[int]:
    flags = [0] * cycles
    flags[0] |= first
    flags[-1] |= 2 * last | 4
    return flags
