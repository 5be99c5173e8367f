"""The process network of a product: an `fpga.kernel`, or a part of one."""

from xdsl.ir import SSAValue

from nybble.backends.fpga.builder import Builder, stored
from nybble.backends.fpga.design import Design
from nybble.dialects.fpga.arrays import (
    ArrayOp,
    BuildTablesOp,
    RescaleOp,
    factor_stream,
    index_stream,
    weight_stream,
)
from nybble.dialects.fpga.attrs import LookupAttr, SparseAttr
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.processes import FLOATS, QuantizeOp, ReadOp, WriteOp, row_words
from nybble.dialects.fpga.rows import stream_type
from nybble.dialects.fpga.types import MemoryType


def network(name: str, design: Design) -> KernelOp:
    """The kernel of a product: memories `x`, `w0` .., `s` (scales of weights) and `y`."""
    builder = Builder(name, design.device)
    results = add_product(builder, design, activations(builder, design))
    write(builder, results, "y")
    return builder.finish()


def activations(builder: Builder, design: Design) -> SSAValue:
    """The memory of a product's activations."""
    rows = design.tiling.tokens.data * row_words(design.tiling.cols.data)
    return builder.memory("x", MemoryType.get(rows, 32 * FLOATS))


def write(builder: Builder, stream: SSAValue, name: str) -> SSAValue:
    """The memory that a stream is written to, as it is."""
    type_ = stream_type(stream)
    memory = builder.memory(name, stored(type_, 1, type_.lanes.data))
    builder.add(WriteOp(stream, memory))
    return memory


def add_product(builder: Builder, design: Design, x: SSAValue) -> SSAValue:
    """The processes of a product of a memory or a stream of rows; the stream of its results."""
    tiling, element = design.tiling, design.element
    weights, factors = weight_stream(tiling, element), factor_stream(tiling)
    share = -(-weights.lanes.data // design.channels)
    used = -(-weights.lanes.data // share)
    codes = [builder.memory(f"w{i}", stored(weights, tiling.passes, share)) for i in range(used)]
    indices = index_stream(tiling, element) if isinstance(element, SparseAttr) else None
    kept: SSAValue | None = None
    if indices is not None:
        kept = builder.memory("i", stored(indices, tiling.passes, indices.lanes.data))
    scales = builder.memory("s", stored(factors, tiling.passes, factors.lanes.data))
    quantize = builder.add(QuantizeOp(x, tiling))
    read_weights = builder.add(ReadOp(codes, tiling.passes, weights), "weights")
    read_factors = builder.add(ReadOp([scales], tiling.passes, factors), "factors")
    chosen: SSAValue | None = None
    if indices is not None and kept is not None:
        chosen = builder.add(ReadOp([kept], tiling.passes, indices), "indices").stream
    stationary: SSAValue = quantize.columns
    sums: SSAValue | None = None
    if isinstance(element, LookupAttr):
        tables = builder.add(BuildTablesOp(quantize.columns, tiling, element, design.ways))
        stationary, sums = tables.tables, tables.sums
    array = builder.add(ArrayOp(stationary, read_weights.stream, sums, chosen, tiling, element))
    made = RescaleOp(array.dots, read_factors.stream, quantize.scales, tiling, element)
    return builder.add(made).results_
