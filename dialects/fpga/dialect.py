"""The fpga dialect: streams, memories, processes, and the elements of an array."""

from xdsl.ir import Dialect

from nybble.dialects.fpga.arrays import ArrayOp, BuildTablesOp, RescaleOp
from nybble.dialects.fpga.attrs import LookupAttr, MultiplyAttr, SparseAttr, TilingAttr
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.processes import QuantizeOp, ReadOp, WriteOp
from nybble.dialects.fpga.types import MemoryType, StreamType

Fpga = Dialect(
    "fpga",
    [KernelOp, QuantizeOp, ReadOp, BuildTablesOp, ArrayOp, RescaleOp, WriteOp],
    [StreamType, MemoryType, TilingAttr, LookupAttr, MultiplyAttr, SparseAttr],
)
