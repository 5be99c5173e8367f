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

The layout follows from the operations that read the weight. The runtime packs a weight into its
argument's layout once, when the model is compiled; a weight that functions read in different
layouts is packed once for each of them.

Does not handle: an argument that operations of one function read in different layouts, which is an
error; weights that are not arguments.
"""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, ModuleOp
from xdsl.ir import SSAValue, Use
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.ops import EmbedOp
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import ProductOp


@dataclass(frozen=True)
class AssignLayout(ModulePass):
    """Give weights that are function arguments a compute layout; see the module's text."""

    name = "assign-layout"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [found for found in op.ops if isinstance(found, func.FuncOp)]:
            if function.body.blocks:
                assign_arguments(function)


def assign_arguments(function: func.FuncOp) -> None:
    """Retype the weight arguments of one function, in place."""
    block = function.body.block
    for argument in block.args:
        type_ = argument.type
        layout = layout_of(argument)
        if isinstance(type_, LowBitTensorType) and layout is not None:
            shape = (type_.rows, type_.cols)
            packed = LowBitTensorType.get(shape, type_.format.data, layout)
            Rewriter.replace_value_with_new_type(argument, packed)
    function.properties["function_type"] = FunctionType.from_lists(
        [argument.type for argument in block.args], list(function.function_type.outputs)
    )


def layout_of(value: SSAValue) -> str | None:
    """The layout in which all uses read a value; None where some use is not of a weight.

    Raises NybbleError where uses want different layouts.
    """
    wanted = [(use.operation, wanted_layout(use)) for use in value.uses]
    layouts = {layout for _, layout in wanted}
    if not wanted or None in layouts:
        return None
    if len(layouts) > 1:
        each = ", ".join(f"{op.name} '{layout}'" for op, layout in wanted)
        raise NybbleError(
            f"one weight is read in different layouts: {each}",
            location=location_of(wanted[-1][0]),
            accepted="operations of one layout, or an argument for each",
        )
    return layouts.pop()


def wanted_layout(use: Use) -> str | None:
    """The layout in which a product reads its weight or an embedding its table; None elsewhere."""
    operation, value = use.operation, use.operation.operands[use.index]
    if isinstance(operation, ProductOp) and operation.weight is value:
        return operation.WEIGHT_LAYOUT
    return operation.TABLE_LAYOUT if isinstance(operation, EmbedOp) else None
