"""Bounds of the keys of pages, and the pages that may hold the largest scores of a query."""

import numpy as np
import numpy.typing as npt

from nybble.dialects.numpy_ref.arrays import F32

Ints = npt.NDArray[np.int32]


def append_bounds(bounds: F32, rows: F32, position: int, size: int) -> F32:
    """The bounds f32 [heads, pages, 2 * d] (least, then largest components) with further keys.

    rows f32 [n, heads * d] at position ..; size: keys of a page, whose first one starts it anew.
    """
    heads, _, width = bounds.shape
    new, dim = bounds.copy(), width // 2
    keys = rows.reshape(len(rows), heads, dim)
    for at, key in enumerate(keys, position):
        page = new[:, at // size]
        if at % size == 0:
            page[:] = np.concatenate([key, key], axis=1)
        page[:, :dim] = np.minimum(page[:, :dim], key)
        page[:, dim:] = np.maximum(page[:, dim:], key)
    return new


def select_pages(q: F32, bounds: F32, position: int, *, parts: int, size: int, count: int) -> Ints:
    """The pages of `size` keys that each row looks at: i32 [heads, n, count], -1 for none.

    q f32 [n, q_heads * d] at position ..; bounds [heads, .., 2 * d], `parts` of them for a page.
    The page of the query comes first, then those before it by the largest score that a key within
    the bounds of any part can have with any query head of the group (Quest, arXiv:2406.10774; of
    parts LServe, arXiv:2502.14866), the earlier of equal ones.
    """
    heads, _, width = bounds.shape
    rows, dim = len(q), width // 2
    queries = q.reshape(rows, heads, -1, dim).astype(np.float64)
    chosen = np.full((heads, rows, count), -1, np.int32)
    for row in range(rows):
        own = (position + row) // size
        held = bounds[:, : own * parts].astype(np.float64)
        query = queries[row][:, :, None]
        best = np.maximum(query * held[:, None, :, :dim], query * held[:, None, :, dim:])
        score = best.sum(axis=-1).max(axis=1, initial=-np.inf).reshape(heads, own, parts)
        order = np.argsort(-score.max(axis=-1, initial=-np.inf), axis=-1, kind="stable")
        chosen[:, row, 0] = own
        found = order[:, : count - 1]
        chosen[:, row, 1 : 1 + found.shape[1]] = found
    return chosen
