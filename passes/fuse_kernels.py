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

After with `fuse-kernels{reasons=false}`:

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

What can be one launch: a norm with the quantization of its result, and the lookup tables of a
quantization that nothing else reads; products of one activation, with the gate or the residual sum
that alone consumes them; rotary embeddings with the norms before and the cache appends after them.
Every other operator is a launch of its own.

Within such a group a cost model chooses: of all ways to cut it into consecutive kernels the
fastest is found by dynamic programming, leaving out those for which a core has no room and, with
`costs=learned`, those whose code would spill (`learned_fusion`). The whole group is taken unless a
cut is faster by more than `margin`: it saves launches, and models err. What was compared is written
on the kernel.

Does not handle: groups that cross a function; norms beside rotary embeddings by themselves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith, func
from xdsl.dialects.builtin import ModuleOp, StringAttr, TensorType
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from nybble.costmodel.analytic.work import CostOptions
from nybble.costmodel.kernels import AnalyticModel, CostModel
from nybble.costmodel.targets.reader import find_target, target_for_level
from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.fused.ops import GluOp, RmsNormOp
from nybble.dialects.lowbit.ops import QuantizeOp
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.lut import LutPrecomputeOp
from nybble.dialects.mpgemm.ops import ProductOp
from nybble.passes.fusion_cuts import STANDALONE, Group, cut, rotates
from nybble.passes.targets import ESTIMATED, TARGETS, load_target


@dataclass(frozen=True)
class FuseKernels(ModulePass):
    """Group operators into fused.kernel regions; see the module's text.

    target: a name in `costmodel.targets`, or one of `passes.targets` for that of the level `isa`.
    chunk: tokens where their number is dynamic. threads: cores that a kernel runs on, 0 for all of
    the target. margin: percent that a cut must be faster to be made. costs: "estimated", or what
    predicts spills: "learned" for the model that comes with nybble, or the file of another.
    reasons: whether to write down why.
    """

    name = "fuse-kernels"
    target: str = "cpu"
    isa: str = "x86-64-v3"
    chunk: int = 512
    threads: int = 0
    margin: int = 3
    costs: str = ESTIMATED
    reasons: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        model = self.model()
        for function in [found for found in op.walk() if isinstance(found, func.FuncOp)]:
            if function.body.blocks:
                fuse_block(function.body.block, model, self.margin, reasons=self.reasons)

    def model(self) -> CostModel:
        """What decides; raises ModelFileError for a file of `costs` that is none."""
        by_level = self.target in TARGETS
        machine = target_for_level(self.isa) if by_level else find_target(self.target)
        analytic = AnalyticModel(machine, CostOptions(self.chunk, cores=self.threads or None))
        if self.costs == ESTIMATED or not by_level:
            return analytic
        from nybble.passes.learned_dataflows import learned_model  # it reads a model
        from nybble.passes.learned_fusion import SpillVeto

        learned, target = learned_model(self.costs), load_target(self.target)
        return SpillVeto(analytic, learned, machine, target, self.isa, self.chunk)


def fuse_block(block: Block, model: CostModel, margin: int = 0, *, reasons: bool = True) -> None:
    """Replace the operators of a block by kernels, in an order that respects their uses."""
    groups = [part for group in find_groups(block) for part in cut(group, model, margin)]
    for group in in_dependence_order(groups):
        outline(group, block, reasons=reasons)


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
        return _with_products(_kind_of_product(op), shared)
    if rotates(op):
        return shared.setdefault("rope", Group())
    producers = [_producer(value, member) for value in op.operands]
    if isinstance(op, QuantizeOp) and isinstance(op.input.owner, RmsNormOp):
        return _if_all(RmsNormOp, producers[0]) or Group()
    if isinstance(op, LutPrecomputeOp) and op.activation.has_one_use():
        return _ending_in(QuantizeOp, producers[0]) or Group()
    if isinstance(op, GluOp) and _is_pair_of_products(op, producers):
        return producers[0]
    if isinstance(op, arith.AddfOp):
        return _residual_group(op, producers) or _elementwise(op)
    return Group() if type(op) in STANDALONE else None


def _kind_of_product(op: ProductOp) -> object:
    """What products have in common that one kernel computes."""
    weight = op.weight.type
    assert isinstance(weight, LowBitTensorType)
    kind = (type(op), weight.format, weight.layout, op.bias is None)
    return (op.operands[0], *kind, tuple(op.properties.items()))


def _elementwise(op: arith.AddfOp) -> Group | None:
    return Group() if isinstance(op.result.type, TensorType) else None


def _producer(value: SSAValue, member: dict[Operation, Group]) -> Group | None:
    return member.get(value.owner) if isinstance(value.owner, Operation) else None


def _with_products(kind: object, shared: dict[object, Group]) -> Group:
    """The group of products of a kind, or a new one where something was added to it."""
    group = _if_all(ProductOp, shared.get(kind)) or Group()
    shared[kind] = group
    return group


def _if_all(kind: type[Operation], group: Group | None) -> Group | None:
    """The group, if it holds nothing but operators of a kind."""
    alike = group is not None and all(isinstance(op, kind) for op in group.ops)
    return group if alike else None


def _ending_in(kind: type[Operation], group: Group | None) -> Group | None:
    """The group, if its last operator is of a kind."""
    return group if group is not None and isinstance(group.ops[-1], kind) else None


def _is_pair_of_products(op: GluOp, producers: Sequence[Group | None]) -> bool:
    """Whether gate and up are the two products of one group and nobody else reads them."""
    group = producers[0]
    if group is None or group is not producers[1] or group.ops != [op.gate.owner, op.up.owner]:
        return False
    return all(value.has_one_use() for value in op.operands)


def _residual_group(op: arith.AddfOp, producers: Sequence[Group | None]) -> Group | None:
    """The group of a single product whose result this sum alone reads."""
    for value, group in zip(op.operands, producers, strict=True):
        if isinstance(value.owner, ProductOp) and group is not None and group.ops == [value.owner]:
            return group if value.has_one_use() else None
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


def outline(group: Group, block: Block, *, reasons: bool) -> None:
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
    if group.reason and reasons:
        kernel.because = StringAttr(group.reason)
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
