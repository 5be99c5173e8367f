"""The mpgemm dialect: mixed-precision matrix products."""

from xdsl.ir import Dialect

from nybble.dialects.mpgemm.lut import LutDotMatmulOp, LutMatmulOp, LutPrecomputeOp
from nybble.dialects.mpgemm.ops import DequantMatmulOp, IntMatmulOp, MatmulOp
from nybble.dialects.mpgemm.tables import TableType

MPGemm = Dialect(
    "mpgemm",
    [MatmulOp, DequantMatmulOp, IntMatmulOp, LutPrecomputeOp, LutMatmulOp, LutDotMatmulOp],
    [TableType],
)
