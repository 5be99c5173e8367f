"""Pass `symmetrize-tables`: keep the half of each lookup table of which the other is the negative.

Before:

```mlir
func.func @f(%q: !lowbit.tensor<1x64, "a8g32">, %w: !lowbit.tensor<8x64, "q4_0">)
    -> tensor<1x8xf32> {
  %t = mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32"> ->
      !mpgemm.table<1x64, "a8g32", "i16">
  %y = mpgemm.lut_matmul %t, %w : !mpgemm.table<1x64, "a8g32", "i16">,
      !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}
```

After:

```mlir
func.func @f(%q: !lowbit.tensor<1x64, "a8g32">, %w: !lowbit.tensor<8x64, "q4_0">)
    -> tensor<1x8xf32> {
  %t = mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32"> ->
      !mpgemm.table<1x64, "a8g32", "i16", "symmetric">
  %y = mpgemm.lut_matmul %t, %w : !mpgemm.table<1x64, "a8g32", "i16", "symmetric">,
      !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}
```

A clear bit then takes a column with a minus sign instead of leaving it out: `c` becomes
`(2 c - (2^b - 1) + (2^b - 1)) / 2`, whose last term is a multiple of the sum of the activations,
which is at hand. Results of exact tables are equal bit for bit; rounded entries lose less, since
they use the range of int8 on both sides of zero (T-MAC, arXiv 2407.00088, section 3.3).

Does not handle: tables that something other than a product reads.
"""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from nybble.dialects.mpgemm.lut import LookupProductOp, LutPrecomputeOp
from nybble.dialects.mpgemm.tables import SYMMETRIC


@dataclass(frozen=True)
class SymmetrizeTables(ModulePass):
    """Make lookup tables symmetric; see the module's text."""

    name = "symmetrize-tables"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for made in [found for found in op.walk() if isinstance(found, LutPrecomputeOp)]:
            if all(isinstance(use.operation, LookupProductOp) for use in made.tables.uses):
                type_ = made.tables.type.with_form(SYMMETRIC)
                Rewriter.replace_value_with_new_type(made.tables, type_)
