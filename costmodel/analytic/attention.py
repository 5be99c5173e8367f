"""The work of attention over a key-value cache and of the append that fills it."""

from dataclasses import replace

from xdsl.dialects.builtin import TensorType

from nybble.costmodel.analytic.cost import tally
from nybble.costmodel.analytic.traffic import Stream
from nybble.costmodel.analytic.work import CostOptions, Work, element_bytes, elements, moved
from nybble.costmodel.targets.target import Target
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp


def seen(queries: int, cached: int, span: int | None) -> int:
    """Pairs of a query and a key that it sees, of one text: query i sees `cached + i + 1` keys.

    span: how many recent keys a query sees at most, None for all.
    """
    most = cached + queries
    if span is None or span >= most:
        return queries * cached + queries * (queries + 1) // 2
    growing = max(0, min(queries, span - cached))
    return growing * cached + growing * (growing + 1) // 2 + (queries - growing) * span


def attention(op: AttentionOp, target: Target, options: CostOptions) -> Work:
    """Scores and sums of values: 4 operations for a pair and component, an exponential for a pair.

    The keys and values that any query sees are read once for every tile of query rows, where the
    query heads of a group share a tile, as FlashAttention does (arXiv:2307.08691).
    """
    assert isinstance(op.keys.type, TensorType)
    heads, _, dim = op.keys.type.get_shape()
    query_rows = elements(op.query, options) // dim
    tokens = query_rows * dim // _columns(op)
    texts = min(options.sequences, tokens)
    queries, group = tokens // texts, _columns(op) // (heads * dim)
    pairs = seen(queries, options.cached, op.span) * texts * heads * group
    keys = min(options.cached + queries, queries - 1 + (op.span or options.cached + queries))
    size = element_bytes(op.keys.type.element_type, target)
    one_head = keys * dim * size
    tile = options.tile or target.tile
    passes = max(1, -(-queries * group // tile.tokens))
    both = Stream("read", one_head, None, one_head, passes, 2 * one_head)
    cache = both * (heads * texts)
    return Work(
        tally({target.arithmetic.attention: 4 * pairs * dim}),
        pairs,
        (
            moved(op.query, "read", target, options),
            replace(cache, value=op.keys),
            replace(cache, value=op.values),
            moved(op.result, "written", target, options),
        ),
    )


def _columns(op: AttentionOp) -> int:
    assert isinstance(op.query.type, TensorType)
    return op.query.type.get_shape()[1]


def append_kv(op: AppendKVOp, target: Target, options: CostOptions) -> Work:
    """The new rows, in the type of the cache."""
    assert isinstance(op.cache.type, TensorType)
    size = element_bytes(op.cache.type.element_type, target)
    written = Stream("written", elements(op.rows, options) * size)
    return Work(streams=(moved(op.rows, "read", target, options), written))
