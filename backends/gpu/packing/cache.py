"""A cache with codes as decode attention reads it, made of what its tokens are.

See `kernels.attention.coded` for where everything lies; `kernels.rows.codes` is what appends.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nybble.backends.gpu.kernels.attention.spec import DecodeSpec
from nybble.dialects.errors import NybbleError
from nybble.dialects.sparse_attn.kv import KEYS, SIDES, VALUES

Halves = npt.NDArray[np.float16]
Buffers = dict[str, npt.NDArray[np.generic]]


def pack_cache(spec: DecodeSpec, keys: Halves, values: Halves, lengths: Sequence[int]) -> Buffers:
    """The buffers of f16 [sequences, kv_heads, context, head_dim], of so many tokens each.

    Whatever is neither a code that is read nor a token is 0. Raises NybbleError for a shape that is
    not the spec's, a length past its context, or a spec without room for tokens as they are.
    """
    shape = (spec.sequences, spec.kv_heads, spec.context, spec.head_dim)
    if not spec.room:
        raise NybbleError(f"a cache of '{spec.cache}' without room", accepted="room for tokens")
    for one in (keys, values):
        if one.shape != shape:
            raise NybbleError(f"a cache of {one.shape}", accepted=str(shape))
    if len(lengths) != spec.sequences or not all(0 <= one <= spec.context for one in lengths):
        accepted = f"{spec.sequences} of 0 to {spec.context}"
        raise NybbleError(f"lengths {tuple(lengths)}", accepted=accepted)
    made = _zeros(spec)
    for sequence, length in enumerate(lengths):
        for head in range(spec.kv_heads):
            for side, rows in ((KEYS, keys), (VALUES, values)):
                mine = {name: one[sequence, head] for name, one in made.items()}
                _fill(spec, mine, side, rows[sequence, head, :length])
    return {name: one.reshape(-1) for name, one in made.items()}


def _zeros(spec: DecodeSpec) -> Buffers:
    """The buffers, empty, with a head's part as one element of the first two dimensions."""
    context, dim = spec.context, spec.head_dim
    codes, exact = (context, spec.coded.row), (spec.coded.exact_rows, dim)
    heads = (spec.sequences, spec.kv_heads)
    made: Buffers = {}
    for side in SIDES:
        name = side[0]
        made[name] = np.zeros((*heads, *codes), np.uint8)
        made[f"{name}_exact"] = np.zeros((*heads, *exact), np.float16)
        for one in ("scales", "minima"):
            made[f"{name}_{one}"] = np.zeros((*heads, *spec.coded.scale_shape(side)), np.float16)
    return made


def _fill(spec: DecodeSpec, made: Buffers, side: str, rows: Halves) -> None:
    """A head's keys or values [tokens, head_dim] into their parts of the buffers."""
    kv, name, count, ring = spec.format, side[0], len(rows), spec.coded.ring
    boundary = kv.boundary(count - 1)
    exact, pinned = made[f"{name}_exact"], min(kv.pinned, count)
    exact[ring : ring + pinned] = rows[:pinned]
    recent = np.arange(max(boundary, kv.pinned), count)
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
