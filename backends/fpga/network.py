"""The process network of a design: an `fpga.kernel`."""

from collections.abc import Mapping

from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from nybble.backends.fpga.design import Design
from nybble.dialects.fpga.arrays import ArrayOp, BuildTablesOp, index_stream, weight_stream
from nybble.dialects.fpga.attrs import LookupAttr
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.processes import FLOATS, ProcessOp, QuantizeOp, ReadOp, WriteOp, row_words
from nybble.dialects.fpga.scales import (
    RescaleOp,
    ScaleGroupsOp,
    bias_stream,
    code_stream,
    factor_stream,
    result_stream,
)
from nybble.dialects.fpga.types import MemoryType, StreamType
from nybble.dialects.fpga.words import power_of_two

NAMES = {"i": "indices", "c": "codes", "s": "factors", "b": "bias"}
"""Memory -> what its stream is called."""


def network(name: str, design: Design) -> KernelOp:
    """The kernel of a product: memories `x`, `w0` .., `s` (scales of weights) and `y`.

    Where there are such: `i`, indices of fields; `c`, integer scales of groups; `b`, a bias.
    """
    tiling, beside = design.tiling, streams_beside(design)
    weights = weight_stream(tiling, design.element)
    memories = memories_of(design, weights, beside)
    kernel = KernelOp(name, design.device, memories)
    given = dict(zip(memories, kernel.body.block.args, strict=True))
    quantize = QuantizeOp(given["x"], tiling, design.has_zeros, design.element.activation_planes)
    codes = [value for name, value in given.items() if name[0] == "w"]
    read = ReadOp(codes, tiling.passes, weights)
    read.stream.name_hint = "weights"
    readers = {one: ReadOp([given[one]], tiling.passes, type_) for one, type_ in beside.items()}
    for one, reader in readers.items():
        reader.stream.name_hint = NAMES[one]
    streams = {one: reader.stream for one, reader in readers.items()}
    made = [quantize, read, *readers.values()]
    made += products(design, quantize.columns, read.stream, streams.get("i"))
    sums = made[-1].results[0]
    if design.code is not None:
        code, count = design.code, design.joined
        made.append(ScaleGroupsOp(sums, streams["c"], tiling, design.element, code, count))
        sums = made[-1].results[0]
    whole = tiling.joined(design.joined)
    scales, totals, bias = quantize.scales, quantize.totals, streams.get("b")
    rescale = RescaleOp(sums, streams["s"], scales, totals, bias, whole)
    made += [rescale, WriteOp(rescale.results_, given["y"])]
    kernel.body.block.add_ops(made)
    name_streams(made)
    return kernel


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


def memories_of(
    design: Design, weights: StreamType, beside: Mapping[str, StreamType]
) -> dict[str, MemoryType]:
    """The arguments of a kernel, by name."""
    tiling = design.tiling
    rows = tiling.tokens.data * row_words(tiling.cols.data)
    found = {"x": MemoryType.get(rows, 32 * FLOATS)}
    share = -(-weights.lanes.data // design.channels)
    used = -(-weights.lanes.data // share)
    found |= {f"w{i}": stored(weights, tiling.passes, share) for i in range(used)}
    found |= {name: stored(one, tiling.passes, one.lanes.data) for name, one in beside.items()}
    results = result_stream(tiling)
    return found | {"y": stored(results, 1, results.lanes.data)}


def products(
    design: Design, columns: SSAValue, weights: SSAValue, indices: SSAValue | None
) -> list[ProcessOp]:
    """What makes sums of products of columns; the array is last.

    Where groups are scaled bit by bit, the sums of all rows can wait for that.
    """
    tiling, element = design.tiling, design.element
    if isinstance(element, LookupAttr):
        tables = BuildTablesOp(columns, tiling, element, design.ways)
        array = ArrayOp(tables.tables, weights, tables.sums, indices, tiling, element)
        return [tables, array]
    depth = 2 if design.code is None else max(2, tiling.row_blocks)
    return [ArrayOp(columns, weights, None, indices, tiling, element, depth)]


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
