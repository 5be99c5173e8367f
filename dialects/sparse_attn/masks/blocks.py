"""Three readings of a mask: every pair, blocks of keys for blocks of queries, and figures.

The block form says of every block of queries and block of keys whether no query sees any of the
keys, each query sees each of them, or it must be looked at pair by pair: what a lowering skips,
computes without a mask, or masks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nybble.dialects.sparse_attn.masks.mask import Bit, Mask, Pair, Tile
from nybble.dialects.sparse_attn.masks.selected import Selected

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
List = npt.NDArray[np.int32]
"""Of a selection: [heads, rows, entries], see `selected`."""

SKIP, PARTIAL, FULL = 0, 1, 2
SAMPLES = 128
"""Queries that figures of a mask are taken over, where there are more."""


def dense(
    mask: Mask,
    queries: Ints,
    keys: Ints,
    heads: int = 1,
    lists: Sequence[List] = (),
    of_each_row: Sequence[bool] = (),
) -> Bools:
    """Whether each query sees each key: bool [heads, queries, keys].

    queries, keys: positions, in order. lists: one for each of `mask.selections`; of_each_row: which
    of them have a row for each query, none if left out.
    """
    shape = (heads, len(queries), len(keys))
    each = of_each_row or (False,) * len(lists)
    listed: dict[Mask, Bools] = {
        selection: _listed(selection, entries, queries, keys, of_each_row=apart)
        for selection, entries, apart in zip(selections_of(mask), lists, each, strict=True)
    }
    at = Pair(queries[None, :, None], keys[None, None, :], _heads(heads), listed)
    return _bits(mask.sees(at), shape) & (at.key <= at.query)


@dataclass(frozen=True)
class BlockForm:
    """states: SKIP, PARTIAL or FULL, int8 [heads, blocks of queries, blocks of keys].

    queries, keys: the bounds of the blocks, one more than there are of them.
    """

    states: npt.NDArray[np.int8]
    queries: Ints
    keys: Ints

    def expand(self, seen: Bools) -> Bools:
        """The mask that a lowering applies, where `seen` is what it finds in partial blocks."""
        each = np.repeat(self.states, np.diff(self.queries), axis=1)
        each = np.repeat(each, np.diff(self.keys), axis=2)
        return (each == FULL) | ((each == PARTIAL) & seen)

    def visits(self, head: int, block: int) -> Ints:
        """The blocks of keys that a block of queries reads."""
        return np.flatnonzero(self.states[head, block])


def block_form(
    mask: Mask,
    queries: tuple[int, int],
    sizes: tuple[int, int],
    heads: int = 1,
    lists: Sequence[List] = (),
) -> BlockForm:
    """The block form for queries first .. last + 1 and all keys before last + 1.

    sizes: of blocks of queries, counted from the first, and of blocks of keys, counted from 0.
    """
    first, end = queries
    q = np.array([*range(first, end, sizes[0]), end], np.int64)
    k = np.array([*range(0, end, sizes[1]), end], np.int64)
    listed: dict[Mask, Bools] = {
        selection: _listed(selection, entries, np.arange(first, end), np.arange(end))
        for selection, entries in zip(selections_of(mask), lists, strict=True)
    }
    first_query, end_query = q[None, :-1, None], q[None, 1:, None]
    first_key, end_key = k[None, None, :-1], k[None, None, 1:]
    reached = first_key < end_query
    tile = Tile(
        first_query,
        end_query,
        first_key,
        np.maximum(np.minimum(end_key, end_query), first_key + 1),
        _heads(heads),
        {one: _over(bits, q - first, k, any_of=True) for one, bits in listed.items()},
        {one: _over(bits, q - first, k, any_of=False) for one, bits in listed.items()},
    )
    shape = (heads, len(q) - 1, len(k) - 1)
    some = _bits(mask.some(tile), shape) & reached
    every = _bits(mask.every(tile), shape) & (end_key <= first_query + 1)
    states = np.where(some & every, FULL, np.where(some, PARTIAL, SKIP))
    return BlockForm(states.astype(np.int8), q, k)


@dataclass(frozen=True)
class Features:
    """What a mask costs, as shares of the pairs (blocks) that a causal mask has.

    density: pairs seen. blocks: blocks read. partial: blocks that are looked at pair by pair.
    selections: lists that have to be made.
    """

    density: float
    blocks: float
    partial: float
    selections: int


def density(mask: Mask, context: int, heads: int = 1, first: int = 0) -> float:
    """Pairs seen over those of a causal mask, mean of heads, in a text of `context` tokens.

    first: the queries before it do not count.
    Exact up to SAMPLES tokens, else over as many queries, evenly spread. Lists are taken to be
    full, of entries that are evenly spread over the keys so far.
    """
    queries = _samples(context - first) + first
    keys = np.arange(context)
    seen = sum(
        int(dense(mask, np.array([query]), keys, heads, _spread(mask, int(query), heads)).sum())
        for query in queries
    )
    return seen / (heads * int((queries + 1).sum()))


def features(mask: Mask, context: int, block: int, rows: int = 1, heads: int = 1) -> Features:
    """Figures for blocks of `rows` queries and `block` keys, see `density`."""
    starts = np.unique(_samples(context) // rows * rows)
    counts = np.zeros(3)
    total = 0
    for start in starts:
        lists = _spread(mask, int(start), heads)
        end = min(int(start) + rows, context)
        states = block_form(mask, (int(start), end), (rows, block), heads, lists).states
        counts += np.bincount(states.reshape(-1), minlength=3)
        total += states.size
    return Features(
        density(mask, context, heads),
        float(1 - counts[SKIP] / total),
        float(counts[PARTIAL] / total),
        len(mask.selections),
    )


def selections_of(mask: Mask) -> tuple[Selected, ...]:
    """The selections of a mask, each of which has a list."""
    found = [one for one in mask.selections if isinstance(one, Selected)]
    return tuple(found)


def _heads(heads: int) -> Ints:
    return np.arange(heads)[:, None, None]


def _bits(bit: Bit, shape: tuple[int, int, int]) -> Bools:
    return np.broadcast_to(np.asarray(bit, np.bool_), shape)


def _listed(
    selection: Selected, entries: List, queries: Ints, keys: Ints, *, of_each_row: bool = False
) -> Bools:
    """Whether a list has each key for each query: bool [heads, queries, keys]."""
    heads, rows, _ = entries.shape
    size = selection.size
    runs = int(max(keys.max(initial=0) // size, entries.max(initial=0))) + 1
    table = np.zeros((heads, rows, runs + 1), np.bool_)  # the last is for what is no entry
    np.put_along_axis(table, np.where(entries < 0, runs, entries), True, axis=2)
    run = np.maximum(queries, 0) // size
    row = np.minimum(run - run[0], rows - 1)
    row = np.arange(len(queries)) if of_each_row else row
    return table[:, row][:, :, keys // size]


def _over(bits: Bools, queries: Ints, keys: Ints, *, any_of: bool) -> Bools:
    """Any (or all) of the bits of each block."""
    combine = np.any if any_of else np.all
    rows = [
        np.stack([combine(bits[:, a:b, c:d], axis=(1, 2)) for c, d in pairwise(keys)], axis=-1)
        for a, b in pairwise(queries)
    ]
    return np.stack(rows, axis=1)


def _samples(context: int) -> Ints:
    return np.unique(np.linspace(0, context - 1, min(context, SAMPLES)).astype(np.int64))


def _spread(mask: Mask, query: int, heads: int) -> list[List]:
    """Full lists for a query: entries evenly spread over the runs up to it."""
    lists: list[List] = []
    for selection in selections_of(mask):
        runs = query // selection.size + 1
        count = min(runs, selection.count or math.ceil(runs / 2))
        entries = np.linspace(0, runs - 1, count).astype(np.int32)
        lists.append(np.broadcast_to(entries, (heads, 1, count)))
    return lists
