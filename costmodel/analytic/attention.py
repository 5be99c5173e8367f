"""The work of attention over a key-value cache and of the append that fills it."""

import math
from dataclasses import replace

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, Operation

from nybble.costmodel.analytic.cost import tally
from nybble.costmodel.analytic.traffic import Stream
from nybble.costmodel.analytic.work import CostOptions, Work, element_bytes, elements, moved
from nybble.costmodel.targets.target import Target
from nybble.dialects.sparse_attn.cache_type import CacheType, cache_shape
from nybble.dialects.sparse_attn.kv import SIDES
from nybble.dialects.sparse_attn.masks import density
from nybble.dialects.sparse_attn.ops import (
    AppendKVOp,
    AttentionOp,
    FinishOp,
    MergeOp,
    PartialOp,
)
from nybble.dialects.sparse_attn.pages import AppendBoundsOp, SelectPagesOp, bounds_shape
from nybble.dialects.sparse_attn.retain import RetainOp


def seen(queries: int, cached: int, span: int | None) -> int:
    """Pairs of a query and a key that it sees, of one text: query i sees `cached + i + 1` keys.

    span: how many recent keys a query sees at most, None for all.
    """
    most = cached + queries
    if span is None or span >= most:
        return queries * cached + queries * (queries + 1) // 2
    growing = max(0, min(queries, span - cached))
    return growing * cached + growing * (growing + 1) // 2 + (queries - growing) * span


def attention(op: AttentionOp | PartialOp, target: Target, options: CostOptions) -> Work:
    """Scores and sums of values: 4 operations for a pair and component, an exponential for a pair.

    The keys and values that any query sees are read once for every tile of query rows, where the
    query heads of a group share a tile, as FlashAttention does (arXiv:2307.08691). Of a mask that
    is no band, pairs and keys count by its density.
    """
    heads, _, dim = cache_shape(op.keys)
    query_rows = elements(op.query, options) // dim
    tokens = query_rows * dim // _columns(op)
    texts = min(options.sequences, tokens)
    queries, group = tokens // texts, _columns(op) // (heads * dim)
    mask, most = op.mask.mask, options.cached + queries
    span = mask.span if mask.is_band else None
    share = 1.0 if mask.is_band else density(mask, most, heads, options.cached)
    pairs = round(seen(queries, options.cached, span) * texts * heads * group * share)
    keys = round(min(most, queries - 1 + (span or most)) * share)
    one_head = math.ceil(keys * token_bytes(op.keys.type, target) / 2)
    tile = options.tile or target.tile
    passes = max(1, -(-queries * group // tile.tokens))
    both = Stream("read", one_head, None, one_head, passes, 2 * one_head)
    cache = both * (heads * texts)
    work = 4 * pairs * dim + corrections(op.keys.type, keys * passes * heads * texts)
    return Work(
        tally({target.arithmetic.attention: work}),
        pairs,
        (
            moved(op.query, "read", target, options),
            replace(cache, value=op.keys),
            replace(cache, value=op.values),
            *(moved(result, "written", target, options) for result in op.results),
        ),
    )


def corrections(type_: Attribute, tokens: int) -> int:
    """Operations that add the low-rank part of what so many tokens of a head are."""
    if not isinstance(type_, CacheType):
        return 0
    sides = sum(type_.format.corrected(side) for side in SIDES)
    return 2 * type_.format.rank * sides * tokens * type_.get_shape()[2]


def token_bytes(type_: Attribute, target: Target) -> float:
    """Bytes of keys and values of a token and head, of a cache of either; codes count as such."""
    if isinstance(type_, CacheType):
        return type_.format.bits_per_token(type_.get_shape()[2]) / 8
    assert isinstance(type_, TensorType)
    return 2.0 * type_.get_shape()[2] * element_bytes(type_.element_type, target)


def merge(op: MergeOp, target: Target, options: CostOptions) -> Work:
    """Two exponentials for a row of a head, three operations for a component."""
    count = 3 * elements(op.acc, options) + 4 * elements(op.max, options)
    streams = _all_moved(op, target, options)
    return Work(tally({target.arithmetic.other: count}), 2 * elements(op.max, options), streams)


def finish(op: FinishOp, target: Target, options: CostOptions) -> Work:
    """A division for a row of a head, a product for a component."""
    count = elements(op.acc, options) + elements(op.sum, options)
    return Work(tally({target.arithmetic.other: count}), 0, _all_moved(op, target, options))


def _all_moved(op: Operation, target: Target, options: CostOptions) -> tuple[Stream, ...]:
    read = (moved(one, "read", target, options) for one in op.operands)
    written = (moved(one, "written", target, options) for one in op.results)
    return (*read, *written)


def _columns(op: AttentionOp | PartialOp) -> int:
    assert isinstance(op.query.type, TensorType)
    return op.query.type.get_shape()[1]


def retain(op: RetainOp, target: Target, options: CostOptions) -> Work:
    """An attention of each row to all slots, which are read for each row anew.

    So are the scores by which tokens are chosen, and written where attention changes them; of the
    last queries also what one of them added.
    """
    heads, slots, dim = op.shape
    rows = elements(op.key_rows, options) // (heads * dim)
    pairs = elements(op.query, options) // dim * slots
    size = math.ceil(heads * slots * token_bytes(op.keys.type, target) / 2)
    one = Stream("read", size, None, size, rows, 2 * size)
    streams = (replace(one, value=op.keys), replace(one, value=op.values))
    chosen = () if op.mass is None else _sums(op, rows)
    given = () if op.scores is None else (op.scores,)
    moves = (moved(value, "read", target, options) for value in (op.query, op.key_rows, *given))
    written = moved(op.result, "written", target, options)
    work = tally({target.arithmetic.attention: 4 * pairs * dim})
    return Work(work, pairs, (*moves, *streams, *chosen, written))


def _sums(op: RetainOp, rows: int) -> tuple[Stream, ...]:
    """What the choice of tokens reads and writes: 4 bytes for a slot, 8 of the last queries."""
    heads, slots, _ = op.shape
    size = 4 * heads * slots * (2 if op.queries else 1)
    one = Stream("read", size, op.mass, size, rows, size)
    is_given = op.scores is not None
    return (one,) if is_given else (one, replace(one, direction="written", value=None))


def append_bounds(op: AppendBoundsOp, target: Target, options: CostOptions) -> Work:
    """Two comparisons for a component of a key; bounds of pages at hand are read and written."""
    count = 2 * elements(op.rows, options)
    size = 4 * count
    streams = (Stream("read", size), Stream("written", size))
    return Work(
        tally({target.arithmetic.other: count}),
        0,
        (moved(op.rows, "read", target, options), *streams),
    )


def select_pages(op: SelectPagesOp, target: Target, options: CostOptions) -> Work:
    """A product and a choice for a component of a bound; the bounds of pages so far are read."""
    heads, most, dim = bounds_shape(op.bounds)
    page = op.size.value.data // op.parts.value.data
    rows = elements(op.query, options) // dim
    parts = min(most, -(-(options.cached + 1) // page))
    bounds = Stream("read", 8 * heads * parts * dim, op.bounds)
    return Work(
        tally({target.arithmetic.other: 3 * rows * parts * dim}),
        0,
        (
            moved(op.query, "read", target, options),
            bounds,
            moved(op.result, "written", target, options),
        ),
    )


def append_kv(op: AppendKVOp, target: Target, options: CostOptions) -> Work:
    """The new rows, in the format of the cache; codes are counted when they are written."""
    heads, _, dim = cache_shape(op.cache)
    tokens = elements(op.rows, options) / (heads * dim)
    size = math.ceil(tokens * heads * token_bytes(op.cache.type, target) / 2)
    written = Stream("written", size)
    return Work(streams=(moved(op.rows, "read", target, options), written))
