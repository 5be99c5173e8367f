"""Pass `fuse-linalg`: group all operators of a function into launches, linalg around products.

Before:

```mlir
func.func @f(%x: tensor<1x64xf32>, %w: !lowbit.tensor<64x64, "q4_0">) -> tensor<64xf32> {
  %y = mpgemm.dequant_matmul %x, %w : tensor<1x64xf32>, !lowbit.tensor<64x64, "q4_0"> ->
      tensor<1x64xf32>
  %z = tensor.collapse_shape %y [[0 : i64, 1 : i64]] : tensor<1x64xf32> into tensor<64xf32>
  func.return %z : tensor<64xf32>
}
```

After:

```mlir
func.func @f(%x: tensor<1x64xf32>, %w: !lowbit.tensor<64x64, "q4_0">) -> tensor<64xf32> {
  %0 = fused.kernel "product"(%x, %w) : (tensor<1x64xf32>, !lowbit.tensor<64x64, "q4_0">) ->
      tensor<1x64xf32> {
  ^bb0(%1: tensor<1x64xf32>, %2: !lowbit.tensor<64x64, "q4_0">):
    %3 = mpgemm.dequant_matmul %1, %2 : tensor<1x64xf32>, !lowbit.tensor<64x64, "q4_0"> ->
        tensor<1x64xf32>
    fused.yield %3 : tensor<1x64xf32>
  }
  %4 = fused.kernel "linalg"(%0) : (tensor<1x64xf32>) -> tensor<64xf32> {
  ^bb0(%5: tensor<1x64xf32>):
    %6 = tensor.collapse_shape %5 [[0 : i64, 1 : i64]] : tensor<1x64xf32> into tensor<64xf32>
    fused.yield %6 : tensor<64xf32>
  }
  func.return %4 : tensor<64xf32>
}
```

There are as few kernels of linalg as the products between them allow. What depends on constants
alone is repeated in each kernel that reads it.

Does not handle: a choice by cost; scalars that go from one kernel to another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.ops import QuantizeOp
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import ProductOp

LINALG = "linalg"


@dataclass(frozen=True)
class FuseLinalg(ModulePass):
    """Group operators into fused.kernel regions; see the module's text.

    buffers: the most inputs and outputs of a kernel of linalg; one with more is cut in two.
    """

    name = "fuse-linalg"
    buffers: int = 30

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [found for found in op.ops if isinstance(found, func.FuncOp)]:
            if function.body.blocks:
                Grouping(function.body.block, self.buffers).run()


@dataclass
class Group:
    """Operators that will be one kernel, in program order; `constants` are copied into it."""

    name: str
    ops: list[Operation] = field(default_factory=list[Operation])
    constants: list[Operation] = field(default_factory=list[Operation])

    def inputs(self) -> list[SSAValue]:
        """What the operators read from outside of the group."""
        inside = {result for op in (*self.constants, *self.ops) for result in op.results}
        read = (value for op in self.ops for value in values_read(op))
        return list(dict.fromkeys(value for value in read if value not in inside))

    def outputs(self) -> list[SSAValue]:
        """The results that are read outside of the group."""
        inside = set(self.ops)
        return [
            result
            for op in self.ops
            for result in op.results
            if any(top_of(use.operation, op.parent) not in inside for use in result.uses)
        ]


def values_read(op: Operation) -> Iterator[SSAValue]:
    """The values that an operation or anything in its regions reads, and that are not in it."""
    for inner in op.walk():
        for value in inner.operands:
            owner = value.owner
            holder = owner if isinstance(owner, Operation) else owner.parent_op()
            if holder is None or not op.is_ancestor(holder) or holder is op.parent_op():
                yield value


def top_of(op: Operation, block: Block | None) -> Operation:
    """The operation of `block` that `op` is, or is in."""
    while op.parent is not block:
        outer = op.parent_op()
        assert outer is not None
        op = outer
    return op


class Grouping:
    """The grouping of one block.

    level: how many products lie one after the other before an operator's value is known.
    """

    def __init__(self, block: Block, buffers: int):
        self.block = block
        self.buffers = buffers
        self.constant: set[Operation] = set()
        self.level: dict[Operation, int] = {}

    def run(self) -> None:
        """Replace the operators of the block by kernels."""
        terminator = self.block.last_op
        assert terminator is not None
        old = [op for op in self.block.ops if op is not terminator]
        for op in old:
            self._classify(op)
        groups = list(self._groups([op for op in old if op not in self.constant]))
        replaced: dict[SSAValue, SSAValue] = {}
        for group in groups:
            kernel = build(group, replaced)
            Rewriter.insert_op(kernel, InsertPoint.before(terminator))
        terminator.operands = [replaced.get(value, value) for value in terminator.operands]
        for op in reversed(old):
            Rewriter.erase_op(op)

    def _classify(self, op: Operation) -> None:
        """Set an operator's level, or find that it is constant and may be copied."""
        sources = [value.owner for value in values_read(op)]
        producers = [owner for owner in sources if isinstance(owner, Operation)]
        ours = is_ours(op)
        known = not ours and len(producers) == len(sources) and self.constant.issuperset(producers)
        if known and not self._is_anchor(op):
            self.constant.add(op)
            return
        steps = [
            self.level.get(producer, 0) + (is_ours(producer) and not ours) for producer in producers
        ]
        self.level[op] = max(steps, default=0)

    def _is_anchor(self, op: Operation) -> bool:
        """Whether a product or the end of the function reads a result."""
        users = [top_of(use.operation, self.block) for value in op.results for use in value.uses]
        return any(is_ours(user) or user is self.block.last_op for user in users)

    def _groups(self, ops: Sequence[Operation]) -> Iterator[Group]:
        """Level by level: the linalg, then what is ours, which may read it."""
        for level in sorted(set(self.level.values())):
            here = [op for op in ops if self.level[op] == level]
            others = [op for op in here if not is_ours(op)]
            if others:
                yield from self._fitting(others)
            yield from our_groups([op for op in here if is_ours(op)])

    def _fitting(self, ops: list[Operation]) -> Iterator[Group]:
        """One group, or several if one would have too many buffers."""
        group = Group(LINALG, ops, self._constants_of(ops))
        if len(group.inputs()) + len(group.outputs()) <= self.buffers or len(ops) == 1:
            yield group
            return
        half = len(ops) // 2
        yield from self._fitting(ops[:half])
        yield from self._fitting(ops[half:])

    def _constants_of(self, ops: Sequence[Operation]) -> list[Operation]:
        """The constant operators that these need, in program order."""
        needed: set[Operation] = set()
        pending = list(ops)
        while pending:
            for value in values_read(pending.pop()):
                owner = value.owner
                if isinstance(owner, Operation) and owner in self.constant - needed:
                    needed.add(owner)
                    pending.append(owner)
        return [op for op in self.block.ops if op in needed]


def is_ours(op: Operation) -> bool:
    """Whether an operator has kernels of its own."""
    return isinstance(op, ProductOp | QuantizeOp)


def our_groups(ops: Sequence[Operation]) -> Iterator[Group]:
    """Quantizations one by one; products that share activation, format and having a bias."""
    groups: dict[object, Group] = {}
    for op in ops:
        if isinstance(op, ProductOp):
            assert isinstance(op.weight.type, LowBitTensorType)
            key = (op.operands[0], type(op), op.weight.type.format, op.bias is None)
            groups.setdefault(key, Group("product")).ops.append(op)
        else:
            groups[op] = Group("quantize", [op])
    return iter(groups.values())


def build(group: Group, replaced: dict[SSAValue, SSAValue]) -> KernelOp:
    """The kernel of a group; `replaced` maps values of the old operators to those of kernels."""
    inputs, outputs = group.inputs(), group.outputs()
    for value in (*inputs, *outputs):
        if not isinstance(value.type, TensorType | LowBitTensorType):
            owner = value.owner
            raise NybbleError(
                f"a value of type {value.type} goes from one kernel to another",
                location=location_of(owner if isinstance(owner, Operation) else group.ops[0]),
                accepted="tensors",
            )
    body = Block(arg_types=[value.type for value in inputs])
    mapping: dict[SSAValue, SSAValue] = dict(zip(inputs, body.args, strict=True))
    for op in (*group.constants, *group.ops):
        body.add_op(op.clone(mapping))
    body.add_op(YieldOp(*(mapping[value] for value in outputs)))
    given = [replaced.get(value, value) for value in inputs]
    kernel = KernelOp(group.name, given, [value.type for value in outputs], Region(body))
    kernel.location = group.ops[0].location
    replaced.update(zip(outputs, kernel.outputs, strict=True))
    return kernel
