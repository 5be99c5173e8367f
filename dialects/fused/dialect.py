"""The fused dialect: memory-bound operators and the kernel region."""

from xdsl.ir import Dialect

from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.fused.ops import (
    EmbedOp,
    GluOp,
    LastRowOp,
    NllOp,
    RmsNormOp,
    RopeOp,
    SampleOp,
)

Fused = Dialect(
    "fused", [RmsNormOp, RopeOp, GluOp, EmbedOp, SampleOp, LastRowOp, NllOp, KernelOp, YieldOp], []
)
