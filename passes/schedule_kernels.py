"""Pass `schedule-kernels`: write on every kernel how it will run on the target.

Before:

```mlir
func.func @f(%x: tensor<1x64xf32>, %g: tensor<64xf32>) -> tensor<1x64xf32> {
  %r = fused.kernel "norm"(%x, %g) : (tensor<1x64xf32>, tensor<64xf32>) -> tensor<1x64xf32> {
  ^bb0(%0: tensor<1x64xf32>, %1: tensor<64xf32>):
    %2 = fused.rms_norm %0, %1 eps 1.000000e-05 : tensor<1x64xf32>, tensor<64xf32> ->
        tensor<1x64xf32>
    fused.yield %2 : tensor<1x64xf32>
  }
  func.return %r : tensor<1x64xf32>
}
```

After:

```mlir
func.func @f(%x: tensor<1x64xf32>, %g: tensor<64xf32>) -> tensor<1x64xf32> {
  %r = fused.kernel "norm"(%x, %g) : (tensor<1x64xf32>, tensor<64xf32>) -> tensor<1x64xf32>
      schedule #schedule.kernel<"cpu", "vector", {tokens = 1 : i64}, "no matrix product"> {
  ^bb0(%0: tensor<1x64xf32>, %1: tensor<64xf32>):
    %2 = fused.rms_norm %0, %1 eps 1.000000e-05 : tensor<1x64xf32>, tensor<64xf32> ->
        tensor<1x64xf32>
    fused.yield %2 : tensor<1x64xf32>
  }
  func.return %r : tensor<1x64xf32>
}
```

The dataflow of a product is that of its operation; `select-dataflow` wrote the reason there.

Does not handle: a choice; tile sizes are the lowering's own for each instruction set.
"""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp, TensorType
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import ProductOp
from nybble.dialects.mpgemm.tables import TableType
from nybble.dialects.schedule.attrs import KernelSchedule


@dataclass(frozen=True)
class ScheduleKernels(ModulePass):
    """Record the decisions; see the module's text.

    target: the backend. chunk: the most tokens that one call with a dynamic count may bring.
    """

    name = "schedule-kernels"
    target: str = "cpu"
    chunk: int = 512

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.chunk < 1:
            raise NybbleError(f"chunk must be at least 1 token, got {self.chunk}")
        for kernel in [found for found in op.walk() if isinstance(found, KernelOp)]:
            dataflow, because = choose_dataflow(kernel)
            tokens = token_count(kernel)
            tokens = self.chunk if tokens == DYNAMIC_INDEX else tokens
            kernel.schedule = KernelSchedule.get(self.target, dataflow, {"tokens": tokens}, because)


def token_count(kernel: KernelOp) -> int:
    """Rows of the kernel's results; DYNAMIC_INDEX if those of any of its matrices are dynamic."""
    inputs = [rows_of(value) for value in kernel.inputs]
    outputs = [rows_of(value) for value in kernel.outputs]
    return DYNAMIC_INDEX if DYNAMIC_INDEX in inputs + outputs else max([1, *outputs])


def rows_of(value: SSAValue) -> int:
    """Rows of a matrix, or the length of a vector if dynamic; 0 for other values."""
    if isinstance(value.type, LowBitTensorType | TableType):
        return value.type.rows
    if not isinstance(value.type, TensorType):
        return 0
    shape = value.type.get_shape()
    return shape[0] if len(shape) == 2 or shape == (DYNAMIC_INDEX,) else 0


def choose_dataflow(kernel: KernelOp) -> tuple[str, str]:
    """The dataflow of a kernel's products, and why it was selected where that is written down."""
    products = [op for op in kernel.body.block.ops if isinstance(op, ProductOp) and op.DATAFLOW]
    if not products:
        return "vector", "no matrix product"
    reasons = [op.because.data for op in products if op.because is not None]
    return products[0].DATAFLOW, " | ".join(dict.fromkeys(reasons))
