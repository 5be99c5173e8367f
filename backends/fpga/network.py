"""The process network of a design: an `fpga.kernel`."""

from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from nybble.backends.fpga.design import Design
from nybble.dialects.fpga.arrays import (
    ArrayOp,
    BuildTablesOp,
    RescaleOp,
    factor_stream,
    index_stream,
    result_stream,
    weight_stream,
)
from nybble.dialects.fpga.attrs import LookupAttr, SparseAttr
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.processes import FLOATS, ProcessOp, QuantizeOp, ReadOp, WriteOp, row_words
from nybble.dialects.fpga.types import MemoryType, StreamType
from nybble.dialects.fpga.words import power_of_two


def network(name: str, design: Design) -> KernelOp:
    """The kernel of a product: memories `x`, `w0` .., `s` (scales of weights) and `y`."""
    tiling, element = design.tiling, design.element
    weights, factors = weight_stream(tiling, element), factor_stream(tiling)
    results = result_stream(tiling)
    rows = tiling.tokens.data * row_words(tiling.cols.data)
    memories = {"x": MemoryType.get(rows, 32 * FLOATS)}
    share = -(-weights.lanes.data // design.channels)
    used = -(-weights.lanes.data // share)
    memories |= {f"w{i}": stored(weights, tiling.passes, share) for i in range(used)}
    indices = index_stream(tiling, element) if isinstance(element, SparseAttr) else None
    if indices is not None:
        memories |= {"i": stored(indices, tiling.passes, indices.lanes.data)}
    memories |= {"s": stored(factors, tiling.passes, factors.lanes.data)}
    memories |= {"y": stored(results, 1, results.lanes.data)}
    kernel = KernelOp(name, design.device, memories)
    x, *codes, s, y = kernel.body.block.args
    chosen: SSAValue | None = None
    quantize = QuantizeOp(x, tiling)
    taken = codes.pop() if indices is not None else None
    read_weights = ReadOp(codes, tiling.passes, weights)
    read_factors = ReadOp([s], tiling.passes, factors)
    read_weights.stream.name_hint, read_factors.stream.name_hint = "weights", "factors"
    made: list[ProcessOp] = [quantize, read_weights, read_factors]
    stationary: SSAValue = quantize.columns
    sums: SSAValue | None = None
    if indices is not None and taken is not None:
        read_indices = ReadOp([taken], tiling.passes, indices)
        made.append(read_indices)
        chosen = read_indices.stream
        chosen.name_hint = "indices"
    if isinstance(element, LookupAttr):
        tables = BuildTablesOp(quantize.columns, tiling, element, design.ways)
        made.append(tables)
        stationary, sums = tables.tables, tables.sums
    array = ArrayOp(stationary, read_weights.stream, sums, chosen, tiling, element)
    rescale = RescaleOp(array.dots, read_factors.stream, quantize.scales, tiling, element)
    made += [array, rescale, WriteOp(rescale.results_, y)]
    kernel.body.block.add_ops(made)
    name_streams(made)
    return kernel


def stored(stream: StreamType, repeat: int, share: int) -> MemoryType:
    """The memory that holds `share` fields of each word of a stream that is read `repeat` times."""
    bits = power_of_two(share * (32 if stream.element == f32 else stream.element_bits))
    return MemoryType.get(stream.words.data // repeat, bits)


def name_streams(ops: list[ProcessOp]) -> None:
    """Name streams after the results that they are, so that the C++ reads well."""
    for op in ops:
        definition = op.get_irdl_definition()
        for (name, _), value in zip(definition.results, op.results, strict=False):
            value.name_hint = value.name_hint or name.rstrip("_")
