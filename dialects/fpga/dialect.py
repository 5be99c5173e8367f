"""The fpga dialect: streams, memories, processes, and the elements of an array."""

from xdsl.ir import Dialect

from nybble.dialects.fpga.arrays import ArrayOp, BuildTablesOp
from nybble.dialects.fpga.attention import AccumulateOp, ScoresOp, WeighOp
from nybble.dialects.fpga.attrs import LookupAttr, MultiplyAttr, SparseAttr, TilingAttr
from nybble.dialects.fpga.caches import AppendCacheOp, HeadsAttr, ReadAtOp, ReadCacheOp
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.processes import QuantizeOp, ReadOp, WriteOp
from nybble.dialects.fpga.rows import FoldOp, ForkOp, MapOp, RegroupOp, SwapOp, YieldOp
from nybble.dialects.fpga.scales import RescaleOp, ScaleGroupsOp
from nybble.dialects.fpga.serial import SerialAttr
from nybble.dialects.fpga.types import MemoryType, StreamType
from nybble.dialects.fpga.xnor import XnorAttr

PRODUCTS = [QuantizeOp, ReadOp, BuildTablesOp, ArrayOp, ScaleGroupsOp, RescaleOp, WriteOp]
ROWS = [ForkOp, MapOp, FoldOp, SwapOp, RegroupOp]
ATTENTION = [ReadAtOp, ReadCacheOp, AppendCacheOp, ScoresOp, WeighOp, AccumulateOp]
ELEMENTS = [LookupAttr, MultiplyAttr, SparseAttr, SerialAttr, XnorAttr]

Fpga = Dialect(
    "fpga",
    [KernelOp, *PRODUCTS, *ROWS, YieldOp, *ATTENTION],
    [StreamType, MemoryType, TilingAttr, *ELEMENTS, HeadsAttr],
)
