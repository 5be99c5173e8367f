"""Bindings of attention and of what fills its cache."""

import math
from collections.abc import Sequence
from dataclasses import replace

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, SSAValue

from nybble.backends.cpu.bindings.scheduled import Scheduled, scheduled_attention
from nybble.backends.cpu.bindings.site import (
    Binding,
    BindingError,
    In,
    Out,
    Partial,
    Scratch,
    Site,
    columns,
)
from nybble.backends.cpu.kernels.attention import Attention
from nybble.backends.cpu.kernels.attention_merge import AttentionMerge
from nybble.backends.cpu.kernels.attention_parts import PartsFinish, PartsMerge, PartsShape
from nybble.backends.cpu.kernels.attention_shape import accumulators
from nybble.backends.cpu.kernels.attention_walk import KeyList
from nybble.backends.cpu.kernels.kv import KEY_BLOCK, PADDING, KvCache
from nybble.backends.cpu.kernels.kv_append import KvQuantize
from nybble.backends.cpu.kernels.kv_pages import Cache, KvPages
from nybble.backends.cpu.kernels.pages import AppendBounds, PageBounds, SelectPages
from nybble.backends.cpu.kernels.retain import Retain
from nybble.backends.cpu.kernels.rope import HeadNorm, Rope, RopeAppend
from nybble.dialects.fused.kernel import YieldOp
from nybble.dialects.fused.ops import HadamardOp, RmsNormOp, RopeOp
from nybble.dialects.shapes import tensor_shape
from nybble.dialects.sparse_attn.cache_type import CacheType, format_of
from nybble.dialects.sparse_attn.kv import KEYS, VALUES, block_of
from nybble.dialects.sparse_attn.masks.blocks import selections_of
from nybble.dialects.sparse_attn.ops import (
    SOFTMAX,
    AppendKVOp,
    AttentionOp,
    FinishOp,
    MergeOp,
    PartialOp,
)
from nybble.dialects.sparse_attn.pages import (
    AppendBoundsOp,
    SelectPagesOp,
    bounds_shape,
    is_of_each_row,
)
from nybble.dialects.sparse_attn.retain import RetainOp

MOST_SPLITS = 8


def bind_rope_append(site: Site) -> Binding:
    """Rotary embedding of queries and keys, and the append of keys and values to the cache.

    Between the two both may go through a Hadamard transform of each head. Queries
    are rotated in place, the caches are updated in place. A second launch turns pages into codes
    where many rows may fill them.
    """
    ropes, appends = site.all(RopeOp), site.all(AppendKVOp)
    keys = [op for op in appends if rotation_of(op.rows) is not None]
    values = [op for op in appends if op not in keys]
    if len(ropes) != 2 or len(keys) != 1 or len(values) != 1:
        raise site.error("must rotate queries and keys and append keys and values")
    key, value = keys[0], values[0]
    key_rope = rotation_of(key.rows)
    assert key_rope is not None
    (query,) = [op for op in ropes if op is not key_rope]
    cache = kv_cache(key.cache)
    transforms = site.all(HadamardOp)
    turned_query, turned_key = turned(site, query, cache), turned(site, key_rope, cache)
    if len(transforms) not in (0, 2):
        raise site.error("must transform heads of queries and of keys alike")
    norms = [op.input.owner for op in (query, key_rope) if isinstance(op.input.owner, RmsNormOp)]
    kernel = RopeAppend(
        cache=cache,
        q_heads=columns(query.input) // cache.head_dim,
        rows=site.tokens,
        norm=head_norm(site, norms),
        keeps_keys=is_read_outside(turned_key),
        hadamard=bool(transforms),
    )
    caches = cache_slots(site, key.cache, value.cache)
    slots = [
        In(site.place(before_norm(query))),
        In(site.place(before_norm(key_rope))),
        *(In(site.place(operand)) for operand in (value.rows, query.cos, query.sin)),
        *caches,
        *(In(site.place(norm.weight)) for norm in norms),
    ]
    in_place = {
        site.result(turned_query): slots[0].index,
        **({site.result(turned_key): slots[1].index} if kernel.keeps_keys else {}),
        site.result(key.result): site.place(key.cache),
        site.result(value.result): site.place(value.cache),
    }
    if kernel.makes_codes or not isinstance(cache, KvPages):
        return Binding(kernel, tuple(slots), in_place)
    codes = KvQuantize(cache, site.threads)
    scratch = (Scratch(),) * (len(codes.buffers) - len(caches))
    then = Binding(codes, (*caches, *scratch), in_place)
    return Binding(kernel, tuple(slots), in_place, then=then)


def rotation_of(value: SSAValue) -> RopeOp | None:
    """The rotary embedding that a value comes from, with a Hadamard transform after it or none."""
    owner = value.owner.input.owner if isinstance(value.owner, HadamardOp) else value.owner
    return owner if isinstance(owner, RopeOp) else None


def turned(site: Site, rope: RopeOp, cache: Cache) -> SSAValue:
    """The rotated heads, after their transform if there is one; raises BindingError where both are
    read."""
    readers = [use.operation for use in rope.result.uses]
    transforms = [one for one in readers if isinstance(one, HadamardOp)]
    if not transforms:
        return rope.result
    if len(readers) > 1 or transforms[0].block.value.data != cache.head_dim:
        raise site.error("must read rotated heads after one transform of each whole head alone")
    return transforms[0].result


def bind_rope(site: Site) -> Binding:
    """Rotary embedding of queries and keys in place, where an attention of its own keeps them."""
    ropes = site.all(RopeOp)
    if len(ropes) != 2:
        raise site.error(f"must rotate queries and keys, it rotates {len(ropes)} matrices")
    context, half = tensor_shape(ropes[0].cos)
    norms = [op.input.owner for op in ropes if isinstance(op.input.owner, RmsNormOp)]
    places = [site.place(before_norm(op)) for op in ropes]
    heads = tuple(columns(op.input) // (2 * half) for op in ropes)
    kernel = Rope(heads, 2 * half, context, site.tokens, head_norm(site, norms))
    tables = (site.place(ropes[0].cos), site.place(ropes[0].sin))
    slots = (*places, *tables, *(site.place(norm.weight) for norm in norms))
    in_place = {site.result(op.result): at for op, at in zip(ropes, places, strict=True)}
    return Binding(kernel, tuple(In(one) for one in slots), in_place)


def is_read_outside(value: SSAValue) -> bool:
    """Whether a region yields a value of its own."""
    return any(isinstance(use.operation, YieldOp) for use in value.uses)


def before_norm(rope: RopeOp) -> SSAValue:
    """What a rotary embedding reads, or what the norm before it reads."""
    owner = rope.input.owner
    return owner.input if isinstance(owner, RmsNormOp) else rope.input


def head_norm(site: Site, norms: Sequence[RmsNormOp]) -> HeadNorm | None:
    """The norm of query and key heads, which must be alike; None without one."""
    kinds = {(norm.eps.value.data, norm.unit_offset is not None) for norm in norms}
    if not kinds:
        return None
    if len(kinds) != 1 or len(norms) != 2:
        raise site.error("must norm query and key heads alike")
    ((eps, offset),) = kinds
    return HeadNorm(eps, offset)


def kv_cache(cache: SSAValue) -> Cache:
    """The shape and the format of a cache, of keys or of values."""
    return cache_of(cache.type)


def cache_of(type_: Attribute) -> Cache:
    """The same of a type; raises BindingError."""
    kv = format_of(type_)
    assert isinstance(type_, TensorType | CacheType)
    heads, context, head_dim = type_.get_shape()
    if context % PADDING:
        raise BindingError(
            f"a context of {context} positions", accepted=f"a multiple of {PADDING} positions"
        )
    if isinstance(type_, CacheType) and kv.is_coded:
        return KvPages(heads, head_dim, context, kv, type_.room.data)
    return KvCache(heads, head_dim, context, kv.exact)


def cache_slots(site: Site, keys: SSAValue, values: SSAValue) -> tuple[In, ...]:
    """The buffers of keys, then those of values."""
    cache = kv_cache(keys)
    return tuple(
        In(site.place(value), part)
        for side, value in ((KEYS, keys), (VALUES, values))
        for part in range(len(cache.buffers_of(side)))
    )


def decode_splits(site: Site, kv_heads: int) -> int:
    """Parts that give all threads as many (key head, part) items; 1 where tokens share out."""
    if site.tokens > 1:
        return 1
    return min(site.threads // math.gcd(kv_heads, site.threads), MOST_SPLITS)


def key_lists(site: Site, op: AttentionOp | PartialOp) -> tuple[KeyList, ...]:
    """The lists of an attention's mask, as their types say."""
    lists: list[KeyList] = []
    for selection, entries in zip(selections_of(op.mask.mask), op.selected, strict=True):
        _, rows, count = tensor_shape(entries)
        each = is_of_each_row(entries)
        lists.append(KeyList(selection, site.tokens if each else rows, count, each))
    return tuple(lists)


def key_block(lists: Sequence[KeyList], page: int = 0) -> int:
    """Keys of a block: those of a whole number of blocks make an entry of any list, and a page."""
    return block_of(page, (one.selection.size for one in lists))


def attention_kernel(site: Site, op: AttentionOp | PartialOp) -> Attention:
    """The kernel of an attention before it is known where its results go."""
    cache, lists = kv_cache(op.keys), key_lists(site, op)
    kernel = Attention(
        cache=cache,
        q_heads=columns(op.query) // cache.head_dim,
        rows=site.tokens,
        scale=op.scale.value.data,
        threads=site.threads,
        mask=op.mask.mask,
        softcap=None if op.softcap is None else op.softcap.value.data,
        key_block=key_block(lists, cache.format.page if isinstance(cache, KvPages) else 0),
        accumulators=accumulators(site.isa),
        isa=site.isa,
        lists=lists,
    )
    return replace(kernel, key_block=kernel.shape.near_block)


def attention_inputs(site: Site, op: AttentionOp | PartialOp) -> tuple[In, ...]:
    """Query, keys, values and lists."""
    lists = (In(site.place(one)) for one in op.selected)
    return (In(site.place(op.query)), *cache_slots(site, op.keys, op.values), *lists)


def bind_attention(site: Site) -> Binding:
    """Attention over the cache; a second launch joins the parts of a decode kernel."""
    op = site.only(AttentionOp)
    kernel = attention_kernel(site, op)
    kernel = replace(
        kernel,
        splits=decode_splits(site, kernel.cache.kv_heads),
        softmax=SOFTMAX[0] if op.softmax is None else op.softmax.data,
    )
    slots = attention_inputs(site, op)
    scratch = (Scratch(),) * (len(kernel.buffers) - len(slots) - 1)
    out = Out(site.result(op.result))
    chosen, space = scheduled_attention(kernel, site.options)
    made = Scheduled(chosen, space)
    if kernel.splits == 1:
        return Binding(made, (*slots, out, *scratch))
    merge = Binding(AttentionMerge(chosen.partial), (Partial(written=False), out))
    return Binding(made, (*slots, Partial(written=True), *scratch), then=merge)


def bind_retained(site: Site) -> Binding:
    """Attention over the tokens that a budget keeps; the state is updated in place."""
    op = site.only(RetainOp)
    heads, slots, dim = op.shape
    mass = () if op.mass is None else (op.mass,)
    scores = () if op.scores is None else (op.scores,)
    kernel = Retain(
        kv_heads=heads,
        head_dim=dim,
        slots=slots,
        budget=op.budget.value.data,
        q_heads=columns(op.query) // dim,
        rows=site.tokens,
        scale=op.scale.value.data,
        threads=site.threads,
        positions=tensor_shape(op.moves)[2],
        run=op.size.value.data,
        by=None if op.by is None else op.by.data,
        queries=op.queries,
        element=element_type(op.keys),
    )
    rows = (op.query, op.key_rows, op.value_rows)
    state = (op.keys, op.values, *mass, op.moves)
    kept = (op.new_keys, op.new_values, *op.new_state)
    read = (In(site.place(one)) for one in (*rows, op.keys, op.values, op.moves, *mass, *scores))
    last = site.op.body.block.last_op
    assert last is not None
    in_place = {
        site.result(new): site.place(old)
        for new, old in zip(kept, state, strict=False)
        if new in last.operands
    }
    return Binding(kernel, (*read, Out(site.result(op.result)), Scratch()), in_place)


def bind_append_bounds(site: Site) -> Binding:
    """The bounds of pages, updated in place."""
    op = site.only(AppendBoundsOp)
    heads, count, dim = bounds_shape(op.bounds)
    kernel = AppendBounds(PageBounds(heads, dim, count, op.size.value.data), site.tokens)
    rows, bounds = site.place(op.rows), site.place(op.bounds)
    return Binding(kernel, (In(rows), In(bounds)), {site.result(op.result): bounds})


def bind_select_pages(site: Site) -> Binding:
    """The pages that rows look at."""
    op = site.only(SelectPagesOp)
    heads, count, dim = bounds_shape(op.bounds)
    parts = op.parts.value.data
    kernel = SelectPages(
        bounds=PageBounds(heads, dim, count, op.size.value.data // parts),
        q_heads=columns(op.query) // dim,
        rows=site.tokens,
        count=op.count,
        parts=parts,
        threads=site.threads,
    )
    read = (In(site.place(one)) for one in (op.query, op.bounds))
    return Binding(kernel, (*read, Out(site.result(op.result)), Scratch()))


def element_type(value: SSAValue) -> Attribute:
    """The type of a tensor's elements."""
    assert isinstance(value.type, TensorType)
    return value.type.get_element_type()


def bind_partial(site: Site) -> Binding:
    """The part of an attention over some of the keys."""
    op = site.only(PartialOp)
    kernel = replace(attention_kernel(site, op), parts=True, shared=op.shared is not None)
    slots = attention_inputs(site, op)
    outs = site.outputs(op.results)
    scratch = (Scratch(),) * (len(kernel.buffers) - len(slots) - len(outs))
    return Binding(kernel, (*slots, *outs, *scratch))


def parts_shape(site: Site, total: SSAValue, acc: SSAValue) -> PartsShape:
    """Heads and features of a part."""
    heads = columns(total)
    dim = columns(acc) // heads
    if dim % KEY_BLOCK:
        raise site.error(f"has heads of {dim} features, which is no multiple of {KEY_BLOCK}")
    return PartsShape(heads, dim, site.tokens)


def bind_merge(site: Site) -> Binding:
    """The part of two sets of keys."""
    op = site.only(MergeOp)
    inputs = (In(site.place(one)) for one in op.operands)
    shape = parts_shape(site, op.sum, op.acc)
    return Binding(PartsMerge(shape), (*inputs, *site.outputs(op.results)))


def bind_finish(site: Site) -> Binding:
    """The attention of a part."""
    op = site.only(FinishOp)
    slots = (In(site.place(op.sum)), In(site.place(op.acc)), Out(site.result(op.result)))
    return Binding(PartsFinish(parts_shape(site, op.sum, op.acc)), slots)
