"""The lowbit dialect: number formats as attributes, low-bit tensors, conversions."""

from xdsl.ir import Dialect

from nybble.dialects.lowbit.ops import DequantizeOp, PackOp, QuantizeOp
from nybble.dialects.lowbit.steps import (
    HadamardStep,
    OnesStep,
    PlusOneStep,
    ScaleStep,
    UnscaleStep,
)
from nybble.dialects.lowbit.types import FormatAttr, LowBitTensorType

LowBit = Dialect(
    "lowbit",
    [QuantizeOp, DequantizeOp, PackOp],
    [
        FormatAttr,
        LowBitTensorType,
        HadamardStep,
        ScaleStep,
        UnscaleStep,
        OnesStep,
        PlusOneStep,
    ],
)
