"""Pass `assign-layout`: choose the byte order in which kernels read each weight.

Before:

```mlir
func.func @f(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<?x8xf32> {
  %y = mpgemm.dequant_matmul %x, %w : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0"> ->
      tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}
```

After:

```mlir
func.func @f(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "q4_0", "tile64">) ->
    tensor<?x8xf32> {
  %y = mpgemm.dequant_matmul %x, %w : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0", "tile64">
      -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}
```

The runtime packs a weight into its argument's layout once, when the model is compiled.

Does not handle: a choice between layouts, there is one; weights that are not arguments.
"""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from nybble.dialects.fused.ops import EmbedOp
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import ProductOp


@dataclass(frozen=True)
class AssignLayout(ModulePass):
    """Give weights that are function arguments a compute layout; see the module's text."""

    name = "assign-layout"
    layout: str = "tile64"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [found for found in op.ops if isinstance(found, func.FuncOp)]:
            if function.body.blocks:
                assign_arguments(function, self.layout)


def assign_arguments(function: func.FuncOp, layout: str) -> None:
    """Retype the weight arguments of one function, in place."""
    block = function.body.block
    for argument in block.args:
        type_ = argument.type
        if isinstance(type_, LowBitTensorType) and is_weight(argument):
            shape = (type_.rows, type_.cols)
            packed = LowBitTensorType.get(shape, type_.format.data, layout)
            Rewriter.replace_value_with_new_type(argument, packed)
    function.properties["function_type"] = FunctionType.from_lists(
        [argument.type for argument in block.args], list(function.function_type.outputs)
    )


def is_weight(value: SSAValue) -> bool:
    """Whether a value is read as the weight of a product or the table of an embedding."""
    uses = list(value.uses)
    return bool(uses) and all(
        (isinstance(use.operation, ProductOp) and use.operation.weight is value)
        or isinstance(use.operation, EmbedOp)
        for use in uses
    )
