"""Pass `fuse-kernels`: group the operators of every function into launches.

Before:

```mlir
func.func @f(%x: tensor<?x64xf32>, %g: tensor<64xf32>) -> !lowbit.tensor<?x64, "a8g32"> {
  %n = fused.rms_norm %x, %g eps 1.000000e-05 : tensor<?x64xf32>, tensor<64xf32> ->
      tensor<?x64xf32>
  %q = lowbit.quantize %n : tensor<?x64xf32> -> !lowbit.tensor<?x64, "a8g32">
  func.return %q : !lowbit.tensor<?x64, "a8g32">
}
```

After:

```mlir
func.func @f(%x: tensor<?x64xf32>, %g: tensor<64xf32>) -> !lowbit.tensor<?x64, "a8g32"> {
  %q = fused.kernel "norm_quantize"(%x, %g) : (tensor<?x64xf32>, tensor<64xf32>) ->
      !lowbit.tensor<?x64, "a8g32"> {
  ^bb0(%0: tensor<?x64xf32>, %1: tensor<64xf32>):
    %2 = fused.rms_norm %0, %1 eps 1.000000e-05 : tensor<?x64xf32>, tensor<64xf32> ->
        tensor<?x64xf32>
    %3 = lowbit.quantize %2 : tensor<?x64xf32> -> !lowbit.tensor<?x64, "a8g32">
    fused.yield %3 : !lowbit.tensor<?x64, "a8g32">
  }
  func.return %q : !lowbit.tensor<?x64, "a8g32">
}
```

The groups: a norm with the quantization of its result, and the lookup tables of a quantization that
nothing else reads; products of one activation, with the gate
or the residual sum that alone consumes them; rotary embeddings with the norms before and the cache
appends after them. Every other operator is a launch of its own.

Does not handle: a choice by cost; groups that cross a function.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects import arith, func
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.fused.ops import (
    EmbedOp,
    GluOp,
    HadamardOp,
    LastRowOp,
    NllOp,
    RmsNormOp,
    RopeOp,
    SampleOp,
)
from nybble.dialects.lowbit.ops import QuantizeOp
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.lut import LutPrecomputeOp
from nybble.dialects.mpgemm.ops import ProductOp
from nybble.dialects.sparse_attn.ops import (
    AppendKVOp,
    AttentionOp,
    FinishOp,
    MergeOp,
    PartialOp,
)

STANDALONE: dict[type[Operation], str] = {
    RmsNormOp: "norm",
    QuantizeOp: "quantize",
    AttentionOp: "attention",
    PartialOp: "attention_part",
    MergeOp: "attention_merge",
    FinishOp: "attention_finish",
    GluOp: "glu",
    HadamardOp: "hadamard",
    EmbedOp: "embed",
    SampleOp: "sample",
    LastRowOp: "last_row",
    NllOp: "nll",
    LutPrecomputeOp: "tables",
}
WITH_TABLES = {"quantize": "quantize_tables", "norm_quantize": "norm_quantize_tables"}
"""Name of a group that quantizes -> that of the one that builds tables of the result."""


@dataclass
class Group:
    """Operators that will be one kernel, in program order."""

    name: str
    ops: list[Operation] = field(default_factory=list[Operation])


@dataclass(frozen=True)
class FuseKernels(ModulePass):
    """Group operators into fused.kernel regions; see the module's text."""

    name = "fuse-kernels"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [found for found in op.walk() if isinstance(found, func.FuncOp)]:
            if function.body.blocks:
                fuse_block(function.body.block)


def fuse_block(block: Block) -> None:
    """Replace the operators of a block by kernels, in an order that respects their uses."""
    groups = find_groups(block)
    for group in in_dependence_order(groups):
        outline(group, block)


def find_groups(block: Block) -> list[Group]:
    """Assign every operator that can be launched to one group."""
    member: dict[Operation, Group] = {}
    shared: dict[object, Group] = {}
    groups: list[Group] = []
    for op in block.ops:
        group = _group_to_join(op, member, shared)
        if group is None:
            continue
        if not group.ops:
            groups.append(group)
        group.ops.append(op)
        member[op] = group
    return groups


def _group_to_join(
    op: Operation, member: dict[Operation, Group], shared: dict[object, Group]
) -> Group | None:
    if isinstance(op, ProductOp):
        return shared.setdefault(_kind_of_product(op), Group("product"))
    if isinstance(op, RopeOp | AppendKVOp) or _feeds_only(op, RopeOp):
        return shared.setdefault("rope", Group("rope_append"))
    producers = [_producer(value, member) for value in op.operands]
    if isinstance(op, QuantizeOp) and isinstance(op.input.owner, RmsNormOp):
        return _renamed(producers[0], "norm_quantize") or Group("quantize")
    if isinstance(op, LutPrecomputeOp) and op.activation.has_one_use():
        return _with_tables(producers[0]) or Group("tables")
    if isinstance(op, GluOp) and _is_pair_of_products(op, producers):
        return _renamed(producers[0], "product_glu")
    if isinstance(op, arith.AddfOp):
        return _residual_group(op, producers) or _elementwise(op)
    name = STANDALONE.get(type(op))
    return None if name is None else Group(name)


def _kind_of_product(op: ProductOp) -> object:
    """What products have in common that one kernel computes."""
    weight = op.weight.type
    assert isinstance(weight, LowBitTensorType)
    kind = (type(op), weight.format, weight.layout, op.bias is None)
    return (op.operands[0], *kind, tuple(op.properties.items()))


def _elementwise(op: arith.AddfOp) -> Group | None:
    return Group("add") if isinstance(op.result.type, TensorType) else None


def _producer(value: SSAValue, member: dict[Operation, Group]) -> Group | None:
    return member.get(value.owner) if isinstance(value.owner, Operation) else None


def _renamed(group: Group | None, name: str) -> Group | None:
    if group is not None:
        group.name = name
    return group


def _with_tables(group: Group | None) -> Group | None:
    """The group of a quantization, as one that builds lookup tables too."""
    named = None if group is None else WITH_TABLES.get(group.name)
    return None if named is None else _renamed(group, named)


def _feeds_only(op: Operation, consumer: type[Operation]) -> bool:
    """Whether a norm's result is read by rotary embeddings alone."""
    if not isinstance(op, RmsNormOp):
        return False
    uses = list(op.result.uses)
    return bool(uses) and all(isinstance(use.operation, consumer) for use in uses)


def _is_pair_of_products(op: GluOp, producers: Sequence[Group | None]) -> bool:
    """Whether gate and up are the two products of one group and nobody else reads them."""
    group = producers[0]
    if group is None or group is not producers[1] or group.ops != [op.gate.owner, op.up.owner]:
        return False
    return all(value.has_one_use() for value in op.operands)


def _residual_group(op: arith.AddfOp, producers: Sequence[Group | None]) -> Group | None:
    """The group of a single product whose result this sum alone reads."""
    for value, group in zip(op.operands, producers, strict=True):
        if group is not None and group.name == "product" and group.ops == [value.owner]:
            return _renamed(group, "product_add") if value.has_one_use() else None
    return None


def in_dependence_order(groups: Iterable[Group]) -> list[Group]:
    """Groups so that each comes after those it reads from (stable otherwise)."""
    pending = list(groups)
    owner = {op: index for index, group in enumerate(pending) for op in group.ops}
    needs = [
        {
            owner[value.owner]
            for op in group.ops
            for value in op.operands
            if isinstance(value.owner, Operation) and value.owner in owner
        }
        - {index}
        for index, group in enumerate(pending)
    ]
    done: list[int] = []
    while len(done) < len(pending):
        waiting = [index for index in range(len(pending)) if index not in done]
        ready = [index for index in waiting if needs[index] <= {*done}]
        assert ready, "groups of operators depend on each other in a circle"
        done.append(ready[0])
    return [pending[index] for index in done]


def outline(group: Group, block: Block) -> None:
    """Move a group's operators into a kernel placed at the end of the block."""
    inside = set(group.ops)
    inputs = list(
        dict.fromkeys(
            value for op in group.ops for value in op.operands if value.owner not in inside
        )
    )
    outputs = [
        result
        for op in group.ops
        for result in op.results
        if any(use.operation not in inside for use in result.uses)
    ]
    body = Block(arg_types=[value.type for value in inputs])
    kernel = KernelOp(group.name, inputs, [value.type for value in outputs], Region(body))
    terminator = block.last_op
    assert terminator is not None
    Rewriter.insert_op(kernel, InsertPoint.before(terminator))
    for value, result in zip(outputs, kernel.outputs, strict=True):
        value.replace_uses_with_if(result, lambda use: use.operation not in inside)
    for op in group.ops:
        op.detach()
        body.add_op(op)
    for value, argument in zip(inputs, body.args, strict=True):
        value.replace_uses_with_if(argument, lambda use: use.operation in inside)
    body.add_op(YieldOp(*outputs))
