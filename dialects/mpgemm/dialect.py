"""The mpgemm dialect: mixed-precision matrix products."""

from xdsl.ir import Dialect

from nybble.dialects.mpgemm.arrays import (
    LutArrayMatmulOp,
    MultiplyArrayMatmulOp,
    SerialArrayMatmulOp,
    SparseChainMatmulOp,
    XnorArrayMatmulOp,
)
from nybble.dialects.mpgemm.lut import LutDotMatmulOp, LutMatmulOp, LutPrecomputeOp
from nybble.dialects.mpgemm.ops import BitserialMatmulOp, DequantMatmulOp, IntMatmulOp, MatmulOp
from nybble.dialects.mpgemm.stream import (
    StreamBitserialMatmulOp,
    StreamIntMatmulOp,
    StreamLookupMatmulOp,
    StreamMatmulOp,
    StreamWarpgroupMatmulOp,
)
from nybble.dialects.mpgemm.tables import TableType

MPGemm = Dialect(
    "mpgemm",
    [
        MatmulOp,
        DequantMatmulOp,
        IntMatmulOp,
        BitserialMatmulOp,
        LutPrecomputeOp,
        LutMatmulOp,
        LutDotMatmulOp,
        StreamMatmulOp,
        StreamWarpgroupMatmulOp,
        StreamIntMatmulOp,
        StreamBitserialMatmulOp,
        StreamLookupMatmulOp,
        LutArrayMatmulOp,
        MultiplyArrayMatmulOp,
        SparseChainMatmulOp,
        SerialArrayMatmulOp,
        XnorArrayMatmulOp,
    ],
    [TableType],
)
