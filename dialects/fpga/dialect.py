"""The fpga dialect: streams, memories, processes, and the elements of an array."""

from xdsl.ir import Dialect

from nybble.dialects.fpga.arrays import ArrayOp, BuildTablesOp, RescaleOp
from nybble.dialects.fpga.attention import AccumulateOp, ScoresOp, WeighOp
from nybble.dialects.fpga.attrs import LookupAttr, MultiplyAttr, SparseAttr, TilingAttr
from nybble.dialects.fpga.caches import AppendCacheOp, HeadsAttr, ReadAtOp, ReadCacheOp
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.processes import QuantizeOp, ReadOp, WriteOp
from nybble.dialects.fpga.rows import FoldOp, ForkOp, MapOp, RegroupOp, SwapOp, YieldOp
from nybble.dialects.fpga.types import MemoryType, StreamType

PRODUCTS = [QuantizeOp, ReadOp, BuildTablesOp, ArrayOp, RescaleOp, WriteOp]
ROWS = [ForkOp, MapOp, FoldOp, SwapOp, RegroupOp]
ATTENTION = [ReadAtOp, ReadCacheOp, AppendCacheOp, ScoresOp, WeighOp, AccumulateOp]

Fpga = Dialect(
    "fpga",
    [KernelOp, *PRODUCTS, *ROWS, YieldOp, *ATTENTION],
    [StreamType, MemoryType, TilingAttr, LookupAttr, MultiplyAttr, SparseAttr, HeadsAttr],
)
