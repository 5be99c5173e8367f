"""The process network of a product: an `fpga.kernel`, or a part of one."""

from xdsl.ir import SSAValue

from nybble.backends.fpga.builder import Builder, stored
from nybble.backends.fpga.design import Design
from nybble.dialects.fpga.arrays import ArrayOp, BuildTablesOp, index_stream, weight_stream
from nybble.dialects.fpga.attrs import LookupAttr
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.processes import FLOATS, QuantizeOp, ReadOp, WriteOp, row_words
from nybble.dialects.fpga.rows import stream_type
from nybble.dialects.fpga.scales import (
    RescaleOp,
    ScaleGroupsOp,
    bias_stream,
    code_stream,
    factor_stream,
)
from nybble.dialects.fpga.types import MemoryType, StreamType

NAMES = {"i": "indices", "c": "codes", "s": "factors", "b": "bias"}
"""Memory -> what its stream is called."""


def network(name: str, design: Design) -> KernelOp:
    """The kernel of a product: memories `x`, `w0` .., `s` (scales of weights) and `y`.

    Where there are such: `i`, indices of fields; `c`, integer scales of groups; `b`, a bias.
    """
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
    """The processes of a product of a memory or a stream of rows; the stream of its results.

    Its memories are arguments of the kernel, in the order of `packing.Packed.memories`.
    """
    tiling, element = design.tiling, design.element
    weights, beside = weight_stream(tiling, element), streams_beside(design)
    share = -(-weights.lanes.data // design.channels)
    used = -(-weights.lanes.data // share)
    codes = [builder.memory(f"w{i}", stored(weights, tiling.passes, share)) for i in range(used)]
    kept = {
        name: builder.memory(name, stored(type_, tiling.passes, type_.lanes.data))
        for name, type_ in beside.items()
    }
    quantize = builder.add(QuantizeOp(x, tiling, design.has_zeros, element.activation_planes))
    read = builder.add(ReadOp(codes, tiling.passes, weights), "weights").stream
    streams = {
        name: builder.add(ReadOp([kept[name]], tiling.passes, type_), NAMES[name]).stream
        for name, type_ in beside.items()
    }
    dots = add_array(builder, design, quantize.columns, read, streams.get("i"))
    if design.code is not None:
        scaled = ScaleGroupsOp(dots, streams["c"], tiling, element, design.code, design.joined)
        dots = builder.add(scaled).sums
    whole, scales, totals = tiling.joined(design.joined), quantize.scales, quantize.totals
    made = RescaleOp(dots, streams["s"], scales, totals, streams.get("b"), whole)
    return builder.add(made).results_


def streams_beside(design: Design) -> dict[str, StreamType]:
    """What a kernel reads of a weight beside its fields, by the name of the memory."""
    tiling = design.tiling
    found: dict[str, StreamType] = {}
    indices = index_stream(tiling, design.element)
    if indices is not None:
        found["i"] = indices
    if design.code is not None:
        found["c"] = code_stream(tiling, design.code)
    found["s"] = factor_stream(tiling.joined(design.joined), design.has_zeros)
    if design.has_bias:
        found["b"] = bias_stream(tiling)
    return found


def add_array(
    builder: Builder, design: Design, columns: SSAValue, weights: SSAValue, indices: SSAValue | None
) -> SSAValue:
    """The processes that make sums of products of columns; the stream of the sums.

    Where groups are scaled bit by bit, the sums of all rows can wait for that.
    """
    tiling, element = design.tiling, design.element
    stationary, sums = columns, None
    if isinstance(element, LookupAttr):
        tables = builder.add(BuildTablesOp(columns, tiling, element, design.ways))
        stationary, sums = tables.tables, tables.sums
    depth = 2 if design.code is None else max(2, tiling.row_blocks)
    array = ArrayOp(stationary, weights, sums, indices, tiling, element, depth)
    return builder.add(array).dots
