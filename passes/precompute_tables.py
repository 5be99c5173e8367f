"""Pass `precompute-tables`: build each activation's lookup tables once, as early as can be.

Before:

```mlir
func.func @f(%q: !lowbit.tensor<1x64, "a8g32">, %a: !lowbit.tensor<8x64, "q4_0">,
             %b: !lowbit.tensor<4x64, "q4_0">) -> (tensor<1x8xf32>, tensor<1x4xf32>) {
  %s = mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32"> ->
      !mpgemm.table<1x64, "a8g32", "i16">
  %x = mpgemm.lut_matmul %s, %a : !mpgemm.table<1x64, "a8g32", "i16">,
      !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  %t = mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32"> ->
      !mpgemm.table<1x64, "a8g32", "i16">
  %y = mpgemm.lut_matmul %t, %b : !mpgemm.table<1x64, "a8g32", "i16">,
      !lowbit.tensor<4x64, "q4_0"> -> tensor<1x4xf32>
  func.return %x, %y : tensor<1x8xf32>, tensor<1x4xf32>
}
```

After:

```mlir
func.func @f(%q: !lowbit.tensor<1x64, "a8g32">, %a: !lowbit.tensor<8x64, "q4_0">,
             %b: !lowbit.tensor<4x64, "q4_0">) -> (tensor<1x8xf32>, tensor<1x4xf32>) {
  %s = mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32"> ->
      !mpgemm.table<1x64, "a8g32", "i16">
  %x = mpgemm.lut_matmul %s, %a : !mpgemm.table<1x64, "a8g32", "i16">,
      !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  %y = mpgemm.lut_matmul %s, %b : !mpgemm.table<1x64, "a8g32", "i16">,
      !lowbit.tensor<4x64, "q4_0"> -> tensor<1x4xf32>
  func.return %x, %y : tensor<1x8xf32>, tensor<1x4xf32>
}
```

Tables stand right behind the quantization that they are built from, so that queries, keys and
values, or gate and up, share one, and a kernel can write them with the quantization (the graph
transformation of LUT Tensor Core, arXiv 2408.06003).

Does not handle: tables of equal activations that are different values; activations of other blocks.
"""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from nybble.dialects.mpgemm.lut import LutPrecomputeOp


@dataclass(frozen=True)
class PrecomputeTables(ModulePass):
    """Share and hoist lookup tables; see the module's text."""

    name = "precompute-tables"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        first: dict[tuple[Block | None, SSAValue, Attribute], LutPrecomputeOp] = {}
        for made in [found for found in op.walk() if isinstance(found, LutPrecomputeOp)]:
            key = (made.parent, made.activation, made.tables.type)
            if key in first:
                Rewriter.replace_op(made, [], [first[key].tables])
                continue
            first[key] = made
            hoist(made)


def hoist(made: LutPrecomputeOp) -> None:
    """Move tables right behind their activation; those of an argument to the front of its block."""
    source, block = made.activation.owner, made.parent
    if block is None or block not in (source, source.parent):
        return
    behind = isinstance(source, Operation)
    point = InsertPoint.after(source) if behind else InsertPoint.at_start(block)
    if point.insert_before is not made:
        made.detach()
        Rewriter.insert_op(made, point)
