"""Pass `lower-kernels-to-fpga`: every launch becomes a network of processes.

Before:

```mlir
func.func @f(%x: tensor<1x64xf32>, %w: !lowbit.tensor<8x64, "w2g32", "array">) -> tensor<1x8xf32> {
  %r = fused.kernel "product"(%x, %w)
      : (tensor<1x64xf32>, !lowbit.tensor<8x64, "w2g32", "array">) -> tensor<1x8xf32>
      schedule #schedule.kernel<"fpga", "lut_array", {tokens = 1 : i64}, ""> {
  ^bb0(%0: tensor<1x64xf32>, %1: !lowbit.tensor<8x64, "w2g32", "array">):
    %2 = mpgemm.lut_array_matmul %0, %1 : tensor<1x64xf32>, !lowbit.tensor<8x64, "w2g32", "array">
        -> tensor<1x8xf32>
    fused.yield %2 : tensor<1x8xf32>
  }
  func.return %r : tensor<1x8xf32>
}
```

After with `lower-kernels-to-fpga{isa=kv260}`:

```mlir
fpga.kernel "f_0" on "kv260" {
^bb0(%x: !fpga.memory<4x512>, %w0: !fpga.memory<4x512>, %s: !fpga.memory<2x256>, %y:
      !fpga.memory<1x256>):
  %columns, %scales = fpga.quantize %x tiling <tokens = 1, rows = 8, cols = 64, group = 32,
        lanes = 4, width = 5, high = 8, wide = 1> : !fpga.memory<4x512> ->
        !fpga.stream<80x1xsi8, 2>, !fpga.stream<1x1xf32, 2>
  %weights = fpga.read %w0 repeat 1 : !fpga.memory<4x512> -> !fpga.stream<4x64xui5, 32>
  %factors = fpga.read %s repeat 1 : !fpga.memory<2x256> -> !fpga.stream<2x8xf32, 2>
  %tables, %sums = fpga.build_tables %columns ways 4 tiling <tokens = 1, rows = 8, cols = 64,
        group = 32, lanes = 4, width = 5, high = 8, wide = 1> element <digits = [0, 1], planes =
        2, step = 1, first = -2> : !fpga.stream<80x1xsi8, 2> -> !fpga.stream<128x4xsi11, 2> sums
        !fpga.stream<4x1xsi13, 2>
  %dots = fpga.array %tables, %weights sums %sums : !fpga.stream<4x1xsi13, 2> tiling <tokens =
        1, rows = 8, cols = 64, group = 32, lanes = 4, width = 5, high = 8, wide = 1> element
        #fpga.lookup<digits = [0, 1], planes = 2, step = 1, first = -2> :
        !fpga.stream<128x4xsi11, 2>, !fpga.stream<4x64xui5, 32> -> !fpga.stream<2x8xsi14, 2>
  %results = fpga.rescale %dots, %factors, %scales tiling <tokens = 1, rows = 8, cols = 64,
        group = 32, lanes = 4, width = 5, high = 8, wide = 1> bits 14 : !fpga.stream<2x8xsi14, 2>,
        !fpga.stream<2x8xf32, 2>, !fpga.stream<1x1xf32, 2> -> !fpga.stream<1x8xf32, 2>
  fpga.write %results, %y : !fpga.stream<1x8xf32, 2>, !fpga.memory<1x256>
}
```

The kernel is named after the function. What calls it, and with which memories, is the host's part.

Does not handle: a number of tokens that is not known; operators that `backends.fpga.operators` has
no processes for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from nybble.backends.fpga.bindings import Network
from nybble.backends.fpga.compose import compose
from nybble.backends.fpga.dataflows import USUAL, find_device
from nybble.dialects.fused.kernel import KernelOp


@dataclass(frozen=True)
class LowerKernelsToFpga(ModulePass):
    """Make process networks of products; see the module's text. isa: the device."""

    name = "lower-kernels-to-fpga"
    isa: str = USUAL

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        made = [one.kernel for one in networks(op, find_device(self.isa))]
        for old in list(op.ops):
            Rewriter.erase_op(old)
        op.body.block.add_ops(made)


def networks(module: ModuleOp, device: str) -> Iterator[Network]:
    """The networks of a module at the scheduled stage, in program order.

    Raises NybbleError at an operation that has none.
    """
    for function in [one for one in module.ops if isinstance(one, func.FuncOp)]:
        stem = "".join(c if c.isalnum() else "_" for c in function.sym_name.data)
        launches = [one for one in function.walk() if isinstance(one, KernelOp)]
        for index, launch in enumerate(launches):
            yield compose(f"{stem}_{index}", launch, device)
