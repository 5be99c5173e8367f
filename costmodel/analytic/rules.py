"""The work of every operation: one rule each, in one table; an operation without a rule raises."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from xdsl.dialects import arith
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation, SSAValue

from nybble.costmodel.analytic.attention import (
    append_bounds,
    append_kv,
    attention,
    finish,
    merge,
    retain,
    select_pages,
)
from nybble.costmodel.analytic.cost import Cost, Tally, tally
from nybble.costmodel.analytic.products import Operands, ProductSize, product
from nybble.costmodel.analytic.sparse import entries_unknown
from nybble.costmodel.analytic.work import (
    DEFAULTS,
    CostOptions,
    Work,
    element_bytes,
    elements,
    moved,
    table_bytes,
    value_bytes,
    weights,
)
from nybble.costmodel.targets.target import Target
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused import ops as fused
from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.lowbit import ops as lowbit
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm import arrays, lut
from nybble.dialects.mpgemm import ops as mpgemm
from nybble.dialects.mpgemm.stream import (
    StreamBitserialMatmulOp,
    StreamFloatProductOp,
    StreamIntMatmulOp,
    StreamLookupMatmulOp,
    StreamMatmulOp,
    StreamWarpgroupMatmulOp,
)
from nybble.dialects.mpgemm.tables import TableType
from nybble.dialects.sparse_attn import ops as sparse_attn
from nybble.dialects.sparse_attn.pages import AppendBoundsOp, SelectPagesOp
from nybble.dialects.sparse_attn.retain import RetainOp
from nybble.dialects.spgemm import ops as spgemm

Rule = Callable[[Any, Target, CostOptions], Work]
"""The work of one operation of a class; `Any`, since each rule takes operations of its own."""


class NoRuleError(NybbleError):
    """An operation whose cost nobody wrote down."""


def cost_of(op: Operation, target: Target, options: CostOptions = DEFAULTS) -> Cost:
    """The cost of an operation in a launch of its own, or of a `fused.kernel` in one launch.

    Raises NoRuleError for an operation without a rule.
    """
    return work_of(op, target, options).cost(target, options)


def work_of(op: Operation, target: Target, options: CostOptions = DEFAULTS) -> Work:
    """The work of an operation; of a `fused.kernel`, that of all its operations together."""
    rule = RULES.get(type(op))
    if rule is None:
        raise NoRuleError(
            f"operation '{op.name}' has no cost rule",
            accepted=", ".join(sorted(known.name for known in RULES)),
        )
    return rule(op, target, options)


def work_together(ops: list[Operation], target: Target, options: CostOptions) -> Work:
    """The work of operations that run as one kernel: what only they use stays in the cores."""
    inside = {*ops}
    whole = sum((work_of(op, target, options) for op in ops), Work())
    internal = {
        result
        for op in ops
        for result in op.results
        if all(use.operation in inside for use in result.uses)
    }
    made = {result for op in ops for result in op.results} - internal
    # what others read too is written out, but read here where it was made
    at_hand = (
        replace(one, age=0, between=0) if one.value in made and one.direction == "read" else one
        for one in whole.keeping(internal).streams
    )
    return replace(whole, streams=tuple(at_hand))


def _kernel(op: KernelOp, target: Target, options: CostOptions) -> Work:
    inner = [one for one in op.body.block.ops if not isinstance(one, YieldOp)]
    return work_together(inner, target, options)


def _nothing(op: Operation, target: Target, options: CostOptions) -> Work:
    return Work()


def _each(operations: float, special: int = 0) -> Rule:
    """So many operations and special functions for each element of the result."""

    def rule(op: Operation, target: Target, options: CostOptions) -> Work:
        count = elements(op.results[0], options)
        streams = [
            moved(value, "read", target, options) for value in op.operands if _is_data(value)
        ]
        streams.append(moved(op.results[0], "written", target, options))
        done = tally({target.arithmetic.other: int(count * operations)})
        return Work(done, count * special, tuple(streams))

    return rule


def _is_data(value: SSAValue) -> bool:
    return isinstance(value.type, TensorType | LowBitTensorType | TableType)


def product_size(op: mpgemm.ProductOp, target: Target, options: CostOptions) -> ProductSize:
    """A product by its sizes, in the way that the target computes it."""
    weight = op.weight.type
    assert isinstance(weight, LowBitTensorType)
    tokens, cols = op.activation_shape()
    return ProductSize(
        weight.number_format,
        weight.rows,
        cols,
        options.rows(tokens),
        *_way(op, target),
        value_bytes(op.operands[0], target, options),
        value_bytes(op.result, target, options),
    )


def _product(op: mpgemm.ProductOp, target: Target, options: CostOptions) -> Work:
    size = product_size(op, target, options)
    operands = Operands(op.operands[0], op.weight, op.result)
    found = product(size, options.tile or target.tile, operands)
    if op.bias is None:
        return found
    added = tally({target.arithmetic.other: size.tokens * size.rows})
    return found + Work(added, streams=(weights(op.bias, target, options),))


def _way(op: mpgemm.ProductOp, target: Target) -> tuple[str, int]:
    """The kind of operations of a product, and how often each weight is used for a token."""
    weight = op.weight.type
    assert isinstance(weight, LowBitTensorType)
    if isinstance(op, mpgemm.DequantMatmulOp):
        return ("bf16" if op.rounds else "f32"), 1
    if isinstance(op, StreamFloatProductOp):
        return op.precision.data, 1
    if isinstance(op, lut.LookupProductOp):
        tables = op.activation.type
        assert isinstance(tables, TableType)
        return "lookup", 2 if tables.exact else 1
    if isinstance(op, mpgemm.QuantizedProductOp):
        bits = op.activation_type.number_format.element.bits
        serial = isinstance(op, mpgemm.BitserialProductOp)
        return ("b1", bits) if serial else ("i8", -(-bits // 8))
    if isinstance(op, arrays.ArrayProductOp):
        return "i8", 1
    plain = weight.number_format.is_plain
    return (target.arithmetic.plain if plain else target.arithmetic.coded), 1


def _rms_norm(op: fused.RmsNormOp, target: Target, options: CostOptions) -> Work:
    """Square, add, scale by the root and by the weight: four operations, a root for each run."""
    length = elements(op.weight, options)
    count = elements(op.result, options)
    streams = (
        moved(op.input, "read", target, options),
        weights(op.weight, target, options),
        moved(op.result, "written", target, options),
    )
    return Work(tally({target.arithmetic.other: 4 * count}), 2 * (count // length), streams)


def _rope(op: fused.RopeOp, target: Target, options: CostOptions) -> Work:
    """Two multiplications and a sum for each element, and a row of both tables for each token."""
    count = elements(op.result, options)
    assert isinstance(op.input.type, TensorType)
    assert isinstance(op.cos.type, TensorType)
    tokens = options.rows(op.input.type.get_shape()[0])
    row = op.cos.type.get_shape()[1] * element_bytes(op.cos.type.element_type, target)
    streams = (
        moved(op.input, "read", target, options),
        replace(weights(op.cos, target, options), first=tokens * row),
        replace(weights(op.sin, target, options), first=tokens * row),
        moved(op.result, "written", target, options),
    )
    return Work(tally({target.arithmetic.other: 3 * count}), 0, streams)


def _hadamard(op: fused.HadamardOp, target: Target, options: CostOptions) -> Work:
    """A sum in each of log2(block) steps, and a factor."""
    return _each((op.block.value.data - 1).bit_length() + 1)(op, target, options)


def _embed(op: fused.EmbedOp, target: Target, options: CostOptions) -> Work:
    """One row of the table for each token, decoded and scaled."""
    table = op.table.type
    assert isinstance(table, LowBitTensorType)
    count = elements(op.result, options)
    rows = count // table.cols
    read = value_bytes(op.table, target, options) // table.rows * rows
    decoded = {} if table.number_format.is_plain else {"decode": count}
    streams = (
        moved(op.ids, "read", target, options),
        replace(weights(op.table, target, options), first=read),
        moved(op.result, "written", target, options),
    )
    return Work(tally({target.arithmetic.other: count, **decoded}), 0, streams)


def _sample(op: fused.SampleOp, target: Target, options: CostOptions) -> Work:
    """Scale, compare, and an exponential for each token of the vocabulary."""
    count = elements(op.logits, options)
    done = tally({target.arithmetic.other: 3 * count})
    return Work(done, count, (moved(op.logits, "read", target, options),))


def _last_row(op: fused.LastRowOp, target: Target, options: CostOptions) -> Work:
    """A row is copied."""
    written = moved(op.result, "written", target, options)
    return Work(Tally(), 0, (replace(written, direction="read", value=op.input), written))


def _nll(op: fused.NllOp, target: Target, options: CostOptions) -> Work:
    """The largest logit, then an exponential and a sum for each."""
    count = elements(op.logits, options)
    streams = (
        moved(op.logits, "read", target, options),
        moved(op.targets, "read", target, options),
        moved(op.result, "written", target, options),
    )
    return Work(tally({target.arithmetic.other: 3 * count}), count, streams)


def _quantize(op: lowbit.QuantizeOp, target: Target, options: CostOptions) -> Work:
    """The largest magnitude, a factor, rounding and packing; a division for each group."""
    type_ = op.result.type
    count = elements(op.input, options)
    groups = count // type_.number_format.group_size(type_.cols)
    streams = (
        moved(op.input, "read", target, options),
        moved(op.result, "written", target, options),
    )
    return Work(tally({target.arithmetic.other: 4 * count}), groups, streams)


def _dequantize(op: lowbit.DequantizeOp, target: Target, options: CostOptions) -> Work:
    streams = (weights(op.input, target, options), moved(op.result, "written", target, options))
    return Work(tally({"decode": elements(op.result, options)}), 0, streams)


def _pack(op: lowbit.PackOp, target: Target, options: CostOptions) -> Work:
    type_ = op.result.type
    assert isinstance(type_, LowBitTensorType)
    streams = (weights(op.input, target, options), moved(op.result, "written", target, options))
    return Work(tally({"unpack": options.rows(type_.rows) * type_.cols}), 0, streams)


def _tables(op: lut.LutPrecomputeOp, target: Target, options: CostOptions) -> Work:
    """One sum for each entry that is kept."""
    type_ = op.tables.type
    assert isinstance(type_, TableType)
    size = table_bytes(type_, options.rows(type_.rows))
    entries = size // type_.entry_bytes
    streams = (
        moved(op.activation, "read", target, options),
        moved(op.tables, "written", target, options),
    )
    return Work(tally({target.arithmetic.other: entries}), 0, streams)


RULES: dict[type[Operation], Rule] = {
    mpgemm.MatmulOp: _product,
    mpgemm.DequantMatmulOp: _product,
    mpgemm.IntMatmulOp: _product,
    mpgemm.BitserialMatmulOp: _product,
    StreamMatmulOp: _product,
    StreamWarpgroupMatmulOp: _product,
    StreamIntMatmulOp: _product,
    StreamBitserialMatmulOp: _product,
    StreamLookupMatmulOp: _product,
    arrays.LutArrayMatmulOp: _product,
    arrays.MultiplyArrayMatmulOp: _product,
    arrays.SparseChainMatmulOp: _product,
    arrays.SerialArrayMatmulOp: _product,
    arrays.XnorArrayMatmulOp: _product,
    lut.LutMatmulOp: _product,
    lut.LutDotMatmulOp: _product,
    lut.LutPrecomputeOp: _tables,
    fused.RmsNormOp: _rms_norm,
    fused.RopeOp: _rope,
    fused.GluOp: _each(3, 2),
    fused.SoftmaxOp: _each(4, 1),
    fused.HadamardOp: _hadamard,
    fused.EmbedOp: _embed,
    fused.SampleOp: _sample,
    fused.LastRowOp: _last_row,
    fused.NllOp: _nll,
    arith.AddfOp: _each(1),
    KernelOp: _kernel,
    YieldOp: _nothing,
    sparse_attn.AppendKVOp: append_kv,
    sparse_attn.AttentionOp: attention,
    sparse_attn.PartialOp: attention,
    RetainOp: retain,
    AppendBoundsOp: append_bounds,
    SelectPagesOp: select_pages,
    sparse_attn.MergeOp: merge,
    sparse_attn.FinishOp: finish,
    lowbit.QuantizeOp: _quantize,
    lowbit.DequantizeOp: _dequantize,
    lowbit.PackOp: _pack,
    spgemm.ConvertOp: entries_unknown,
    spgemm.MatmulOp: entries_unknown,
    spgemm.SddmmOp: entries_unknown,
    spgemm.SoftmaxOp: entries_unknown,
    spgemm.SpmmOp: entries_unknown,
}
"""Operation -> its rule. The numbers of operations for an element are those of the numpy
references, a comparison or a rounding counting as one."""
