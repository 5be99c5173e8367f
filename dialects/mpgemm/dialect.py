"""The mpgemm dialect: mixed-precision matrix products."""

from xdsl.ir import Dialect

from nybble.dialects.mpgemm.ops import DequantMatmulOp, IntMatmulOp, MatmulOp

MPGemm = Dialect("mpgemm", [MatmulOp, DequantMatmulOp, IntMatmulOp], [])
