"""Pass `chain-kernels`: all launches of a function become one.

Before:

```mlir
func.func @f(%x: tensor<1x64xf32>, %g: tensor<64xf32>) -> tensor<1x64xf32> {
  %n = fused.kernel "norm"(%x, %g) : (tensor<1x64xf32>, tensor<64xf32>) -> tensor<1x64xf32> {
  ^bb0(%0: tensor<1x64xf32>, %1: tensor<64xf32>):
    %2 = fused.rms_norm %0, %1 eps 1.000000e-05 : tensor<1x64xf32>, tensor<64xf32> ->
        tensor<1x64xf32>
    fused.yield %2 : tensor<1x64xf32>
  }
  %s = fused.kernel "add"(%n, %x) : (tensor<1x64xf32>, tensor<1x64xf32>) -> tensor<1x64xf32> {
  ^bb0(%0: tensor<1x64xf32>, %1: tensor<1x64xf32>):
    %2 = arith.addf %0, %1 : tensor<1x64xf32>
    fused.yield %2 : tensor<1x64xf32>
  }
  func.return %s : tensor<1x64xf32>
}
```

After:

```mlir
func.func @f(%x: tensor<1x64xf32>, %g: tensor<64xf32>) -> tensor<1x64xf32> {
  %s = fused.kernel "chain"(%x, %g) : (tensor<1x64xf32>, tensor<64xf32>) -> tensor<1x64xf32> {
  ^bb0(%x_1: tensor<1x64xf32>, %g_1: tensor<64xf32>):
    %2 = fused.rms_norm %x_1, %g_1 eps 1.000000e-05 : tensor<1x64xf32>, tensor<64xf32> ->
        tensor<1x64xf32>
    %3 = arith.addf %2, %x_1 : tensor<1x64xf32>
    fused.yield %3 : tensor<1x64xf32>
  }
  func.return %s : tensor<1x64xf32>
}
```

What launches pass to each other is then inside of a kernel, where a target can keep it on the chip.

Does not handle: operations of a function that are in no launch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from nybble.dialects.fused.kernel import KernelOp, YieldOp


@dataclass(frozen=True)
class ChainKernels(ModulePass):
    """Make one launch of all those of a function; see the module's text."""

    name = "chain-kernels"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [found for found in op.ops if isinstance(found, func.FuncOp)]:
            kernels = [one for one in function.walk() if isinstance(one, KernelOp)]
            if len(kernels) > 1:
                chain(kernels)


def chain(kernels: Sequence[KernelOp]) -> None:
    """Replace launches that follow one another in a block by one in the last one's place."""
    made = made_in_order(kernels)
    read = dict.fromkeys(value for kernel in kernels for value in kernel.inputs)
    inputs = [value for value in read if value not in made]
    outputs = [value for value in made if is_read_outside(value, kernels)]
    body = Block(arg_types=[value.type for value in inputs])
    inside: dict[SSAValue, SSAValue] = dict(zip(inputs, body.args, strict=True))
    for value, argument in inside.items():
        argument.name_hint = value.name_hint
    for kernel in kernels:
        inside |= zip(kernel.outputs, move(kernel, body, inside), strict=True)
    body.add_op(YieldOp(*(inside[value] for value in outputs)))
    whole = KernelOp("chain", inputs, [value.type for value in outputs], Region(body))
    whole.schedule = kernels[-1].schedule
    Rewriter.insert_op(whole, InsertPoint.before(kernels[-1]))
    for value, result in zip(outputs, whole.outputs, strict=True):
        result.name_hint = value.name_hint
        value.replace_all_uses_with(result)
    for kernel in reversed(kernels):
        Rewriter.erase_op(kernel)


def made_in_order(kernels: Sequence[KernelOp]) -> list[SSAValue]:
    """All results of launches."""
    return [result for kernel in kernels for result in kernel.outputs]


def is_read_outside(value: SSAValue, kernels: Sequence[KernelOp]) -> bool:
    """Whether something else than the launches reads a result."""
    return any(use.operation not in kernels for use in value.uses)


def move(kernel: KernelOp, body: Block, inside: dict[SSAValue, SSAValue]) -> Sequence[SSAValue]:
    """Move a launch's operations to the end of a block; what it yields there."""
    for argument, value in zip(kernel.body.block.args, kernel.inputs, strict=True):
        argument.replace_all_uses_with(inside[value])
    operations = list(kernel.body.block.ops)
    last = operations.pop()
    yielded = tuple(last.operands)
    for op in operations:
        op.detach()
        body.add_op(op)
    return yielded
