"""Pass `select-dataflow`: decide how each mpgemm.matmul is computed.

Before:

```mlir
func.func @f(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<?x8xf32> {
  %y = mpgemm.matmul %x, %w : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}
```

After:

```mlir
func.func @f(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<?x8xf32> {
  %q = lowbit.quantize %x : tensor<?x64xf32> -> !lowbit.tensor<?x64, "a8g32">
  %y = mpgemm.int_matmul %q, %w : !lowbit.tensor<?x64, "a8g32">, !lowbit.tensor<8x64, "q4_0">
      -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}
```

Products that read the same activation in groups of the same size share one quantization.

Does not handle: a choice by cost. The activation mode decides, and formats without integer codes
(float and grid formats) are always decoded.
"""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Block, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit.ops import QuantizeOp
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import DequantMatmulOp, IntMatmulOp, MatmulOp
from nybble.dialects.numpy_ref.quantize import activation_group

DIGIT_MODES = {"i8": "a8", "i16": "a16"}
"""Activation mode -> the format of its integers, to which `g` and a group size are added."""
ACTIVATION_MODES = (*DIGIT_MODES, "bf16", "f32")

Shared = dict[tuple[Block | None, SSAValue, str], SSAValue]
"""(block, activation, format) -> its quantization."""


@dataclass(frozen=True)
class SelectDataflow(ModulePass):
    """Turn intent into a dataflow; see the module's text.

    activations: "i8" and "i16" quantize activations to integers of so many bits with one scale per
    group of the weight, "bf16" lets a kernel round activations and decoded weights to bf16, "f32"
    keeps them. prefill: the same for products of more than one token; empty for no difference.
    """

    name = "select-dataflow"
    activations: str = "i8"
    prefill: str = ""

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        one, many = self.activations, self.prefill or self.activations
        check_mode(one)
        check_mode(many)
        shared: Shared = {}
        for matmul in [found for found in op.walk() if isinstance(found, MatmulOp)]:
            rewrite(matmul, one if matmul.activation_shape()[0] == 1 else many, shared)


def check_mode(mode: str) -> None:
    """Raise unless `mode` is one of ACTIVATION_MODES."""
    if mode not in ACTIVATION_MODES:
        raise NybbleError(f"unknown activation mode '{mode}'", accepted=", ".join(ACTIVATION_MODES))


def rewrite(matmul: MatmulOp, mode: str, shared: Shared) -> None:
    """Replace one product by the dataflow that a mode asks for."""
    if mode in DIGIT_MODES and takes_integers(matmul):
        to_int_matmul(matmul, DIGIT_MODES[mode], shared)
    else:
        to_dequant_matmul(matmul, "bf16" if mode == "bf16" else None)


def takes_integers(matmul: MatmulOp) -> bool:
    """Whether the weight's values are integer codes less a zero point, group by group."""
    weight = matmul.weight.type
    assert isinstance(weight, LowBitTensorType)
    element = weight.number_format.element
    return element.has_codes and element.table is None


def to_int_matmul(matmul: MatmulOp, integers: str, shared: Shared) -> None:
    """rewrite: `matmul(x, w) -> int_matmul(quantize(x), w)`, one quantize per (x, group)."""
    weight, activation = matmul.weight.type, matmul.activation
    assert isinstance(weight, LowBitTensorType)
    group = weight.number_format.group_size(weight.cols)
    spec = f"{integers}g{activation_group(group) or group}"
    key = (matmul.parent, activation, spec)
    if key not in shared:
        tokens, columns = matmul.activation_shape()
        quantized = LowBitTensorType.get((tokens, columns), spec)
        quantize = QuantizeOp.build(operands=[activation], result_types=[quantized])
        Rewriter.insert_op(quantize, InsertPoint.before(matmul))
        shared[key] = quantize.result
    Rewriter.replace_op(
        matmul, IntMatmulOp(shared[key], matmul.weight, matmul.bias, matmul.result.type)
    )


def to_dequant_matmul(matmul: MatmulOp, precision: str | None) -> None:
    """rewrite: `matmul(x, w) -> dequant_matmul(x, w) precision p`"""
    operands = (matmul.activation, matmul.weight, matmul.bias, matmul.result.type)
    decoded = DequantMatmulOp(*operands)
    decoded.precision = None if precision is None else StringAttr(precision)
    Rewriter.replace_op(matmul, decoded)
