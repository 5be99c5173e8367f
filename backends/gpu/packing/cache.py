"""A cache with codes as decode attention reads it, made of what its tokens are.

See `kernels.attention.coded` for where everything lies; `kernels.rows.codes` is what appends.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nybble.backends.gpu.kernels.attention.coded import CodedCache
from nybble.dialects.errors import NybbleError
from nybble.dialects.sparse_attn.kv import KEYS, SIDES, VALUES

Halves = npt.NDArray[np.float16]
Buffers = dict[str, npt.NDArray[np.generic]]


def pack_cache(
    cache: CodedCache, keys: Halves, values: Halves, lengths: Sequence[int], queries: int = 1
) -> Buffers:
    """The buffers of f16 [sequences, kv_heads, context, head_dim], of so many tokens each.

    queries: how many of the last tokens of each sequence look at it. Whatever none of them reads is
    0. Raises NybbleError for a shape that is not the cache's, a length past its context, or a cache
    without room for tokens as they are.
    """
    count = len(lengths)
    shape = (count, cache.heads // max(count, 1), cache.context, cache.head_dim)
    if not cache.room:
        raise NybbleError(f"a cache of '{cache.name}' without room", accepted="room for tokens")
    for one in (keys, values):
        if one.shape != shape:
            raise NybbleError(f"a cache of {one.shape}", accepted=str(shape))
    if cache.heads % count or not all(0 <= one <= cache.context for one in lengths):
        accepted = f"0 to {cache.context} each, for sequences of {cache.heads} heads in all"
        raise NybbleError(f"lengths {tuple(lengths)}", accepted=accepted)
    made = _zeros(cache)
    for number in range(cache.heads):
        sequence, head = divmod(number, shape[1])
        for side, tokens in ((KEYS, keys), (VALUES, values)):
            mine = {name: one[number] for name, one in made.items()}
            _fill(cache, mine, side, tokens[sequence, head, : lengths[sequence]], queries)
    return {name: one.reshape(-1) for name, one in made.items()}


def _zeros(cache: CodedCache) -> Buffers:
    """The buffers, empty, with a head's part as one element of the first dimension."""
    codes, exact = (cache.context, cache.row), (cache.exact_rows, cache.head_dim)
    made: Buffers = {}
    for side in SIDES:
        name = side[0]
        made[name] = np.zeros((cache.heads, *codes), np.uint8)
        made[f"{name}_exact"] = np.zeros((cache.heads, *exact), np.float16)
        for one in ("scales", "minima"):
            made[f"{name}_{one}"] = np.zeros((cache.heads, *cache.scale_shape(side)), np.float16)
    return made


def _fill(cache: CodedCache, made: Buffers, side: str, rows: Halves, queries: int) -> None:
    """A head's keys or values [tokens, head_dim] into their parts of the buffers."""
    kv, name, count, ring = cache.format, side[0], len(rows), cache.ring
    boundary = kv.boundary(count - 1)
    exact, pinned = made[f"{name}_exact"], min(kv.pinned, count)
    exact[ring : ring + pinned] = rows[:pinned]
    recent = np.arange(max(kv.boundary(count - queries), kv.pinned), count)
    exact[recent % ring] = rows[recent]
    first = kv.pinned
    if boundary <= first:
        return
    weight = kv.coded(side, rows[first:boundary].astype(np.float32))
    assert weight.zero is not None, "codes of a cache have minima"
    each = 8 // kv.bits
    parts = weight.require_codes().reshape(boundary - first, -1, each)
    made[name][first:boundary] = (parts << (np.arange(each) * kv.bits)).sum(axis=-1)
    for one, numbers in (("scales", weight.scale), ("minima", weight.zero)):
        if side == KEYS:
            made[f"k_{one}"][first // kv.key_group : boundary // kv.key_group] = numbers
        else:
            made[f"v_{one}"][:, first:boundary] = numbers.T
