"""The fused dialect: memory-bound operators and the kernel region."""

from xdsl.ir import Dialect

from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.fused.ops import (
    EmbedOp,
    GluOp,
    HadamardOp,
    LastRowOp,
    NllOp,
    RmsNormOp,
    RopeOp,
    SampleOp,
    SoftmaxOp,
)

Fused = Dialect(
    "fused",
    [
        RmsNormOp,
        RopeOp,
        GluOp,
        SoftmaxOp,
        HadamardOp,
        EmbedOp,
        SampleOp,
        LastRowOp,
        NllOp,
        KernelOp,
        YieldOp,
    ],
    [],
)
