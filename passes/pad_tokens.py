"""Pass `pad-tokens`: give products of a fixed number of tokens whole blocks of rows.

Before:

```mlir
func.func @f(%x: tensor<3x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<3x8xf32> {
  %y = mpgemm.matmul %x, %w : tensor<3x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<3x8xf32>
  func.return %y : tensor<3x8xf32>
}
```

After:

```mlir
func.func @f(%x: tensor<3x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<3x8xf32> {
  %0 = arith.constant 0.000000e+00 : f32
  %1 = tensor.empty() : tensor<16x64xf32>
  %2 = linalg.fill ins(%0 : f32) outs(%1 : tensor<16x64xf32>) -> tensor<16x64xf32>
  %3 = tensor.insert_slice %x into %2[0, 0] [3, 64] [1, 1] : tensor<3x64xf32> into
      tensor<16x64xf32>
  %4 = mpgemm.matmul %3, %w : tensor<16x64xf32>, !lowbit.tensor<8x64, "q4_0"> ->
      tensor<16x8xf32>
  %y = tensor.extract_slice %4[0, 0] [3, 8] [1, 1] : tensor<16x8xf32> to tensor<3x8xf32>
  func.return %y : tensor<3x8xf32>
}
```

Products that read the same activation share its padded form. One token stays one token: that is
a kernel of its own.

Does not handle: dynamic numbers of tokens, whose buffers have room for whole blocks anyway.
"""

from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, tensor
from xdsl.dialects.builtin import DYNAMIC_INDEX, Float32Type, FloatAttr, ModuleOp, TensorType
from xdsl.dialects.linalg.ops import FillOp
from xdsl.ir import Block, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from nybble.dialects.errors import NybbleError
from nybble.dialects.mpgemm.ops import MatmulOp

Padded = dict[tuple[Block | None, SSAValue], SSAValue]
"""(block, activation) -> the activation with more rows."""


@dataclass(frozen=True)
class PadTokens(ModulePass):
    """Pad activations with rows of zeros; see the module's text. block: rows of a block."""

    name = "pad-tokens"
    block: int = 16

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.block < 1:
            raise NybbleError(f"a block of {self.block} rows", accepted="1 or more")
        padded: Padded = {}
        for matmul in [found for found in op.walk() if isinstance(found, MatmulOp)]:
            tokens, _ = matmul.activation_shape()
            if tokens not in (1, DYNAMIC_INDEX) and tokens % self.block:
                pad(matmul, -(-tokens // self.block) * self.block, padded)


def pad(matmul: MatmulOp, rows: int, padded: Padded) -> None:
    """rewrite: `matmul(x, w) -> extract_slice(matmul(insert_slice(x, fill(0)), w))`"""
    builder = Builder(InsertPoint.before(matmul))
    tokens, columns = matmul.activation_shape()
    key = (matmul.parent, matmul.activation)
    if key not in padded:
        padded[key] = _padded(builder, matmul.activation, (tokens, columns), rows)
    _, features = matmul.result.type.get_shape()
    wide = TensorType(Float32Type(), [rows, features])
    product = builder.insert(MatmulOp(padded[key], matmul.weight, matmul.bias, wide))
    part = tensor.ExtractSliceOp.from_static_parameters(
        product.result, [0, 0], [tokens, features], [1, 1]
    )
    part.result.name_hint = matmul.result.name_hint
    Rewriter.replace_op(matmul, part)


def _padded(builder: Builder, value: SSAValue, shape: tuple[int, int], rows: int) -> SSAValue:
    wide = TensorType(Float32Type(), [rows, shape[1]])
    zero = builder.insert(arith.ConstantOp(FloatAttr(0.0, Float32Type())))
    empty = builder.insert(tensor.EmptyOp([], wide))
    zeros = builder.insert(FillOp([zero.result], [empty.tensor], [wide]))
    whole = tensor.InsertSliceOp.from_static_parameters(
        value, zeros.results[0], [0, 0], list(shape), [1, 1]
    )
    return builder.insert(whole).result
