"""The operators of a launch as one kernel: what they pass to each other stays on the chip."""

from collections.abc import Iterator
from functools import reduce
from math import gcd

from xdsl.dialects import arith
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation, SSAValue

from nybble.backends.fpga.analysis import analyse, check_fits, shortages
from nybble.backends.fpga.bindings import Binding, Network
from nybble.backends.fpga.depths import set_depths
from nybble.backends.fpga.network import write
from nybble.backends.fpga.operators import OPERATORS, is_alone, put_row
from nybble.backends.fpga.row_builder import Rows, known_shape, name_of
from nybble.costmodel.targets.reader import find_target
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.processes import FLOATS
from nybble.dialects.fpga.rows import stream_type
from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.fused.ops import GluOp, RmsNormOp, RopeOp, SoftmaxOp
from nybble.dialects.locations import location_of
from nybble.dialects.mpgemm.arrays import ArrayProductOp
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp


def compose(name: str, launch: KernelOp, device: str) -> Network:
    """The network of a launch with as many lanes as cost it least of a device full of its like.

    Raises NybbleError where an operator has no processes, and FitError where all are too large.
    """
    target = find_target(device)
    made = [
        (one, analyse(one.kernel))
        for one in (build(name, launch, device, lanes) for lanes in lanes_of(launch))
    ]
    fitting = [one for one in made if not shortages(one[1], target)]
    best, found = min(fitting or made, key=lambda one: one[1].cycles * one[1].share(target))
    check_fits(found, target)
    return best


def build(name: str, launch: KernelOp, device: str, lanes: int) -> Network:
    """The network of a launch with so many lanes; NybbleError where there is none."""
    net = Rows(name, device, lanes)
    for op in launch.body.block.ops:
        if isinstance(op, YieldOp):
            break
        try:
            add_operator(net, op)
        except NybbleError as error:
            error.location = error.location or location_of(op)
            raise
    last = launch.body.block.last_op
    assert isinstance(last, YieldOp)
    outputs = tuple(output(net, value, index) for index, value in enumerate(last.arguments))
    check_used(net, launch)
    kernel = net.finish()
    set_depths(kernel)
    shapes = tuple(known_shape(value) for value in last.arguments)
    return Network(kernel, tuple(net.bindings), outputs, shapes)


def add_operator(net: Rows, op: Operation) -> None:
    """Add an operator's processes; NybbleError for one that has none."""
    for kind, adds in OPERATORS.items():
        if isinstance(op, kind):
            adds(net, op)
            return
    accepted = ", ".join(sorted({getattr(one, "name", "products") for one in OPERATORS}))
    raise NybbleError(f"'{op.name}' has no kernel on an FPGA", accepted=accepted)


def output(net: Rows, value: SSAValue, index: int) -> Binding:
    """Write a result to a memory of its own; a cache is where it was."""
    if value in net.appended:
        memory = net.caches[value] if value in net.caches else put_row(net, net.appended[value])
        return Binding("cache", index, (name_of(memory),), net.lanes)
    stream = net.values[value] if value in net.values else net.rows(value)
    memory = write(net, stream, "y")
    design = net.designs.get(stream)
    how = "product" if design is not None else "rows"
    return Binding(how, index, (name_of(memory),), stream_type(stream).lanes.data, design)


def check_used(net: Rows, launch: KernelOp) -> None:
    """Raise NybbleError for a result that nothing reads, which a stream could not be."""
    for op in launch.body.block.ops:
        if any(not list(result.uses) for result in op.results):
            raise NybbleError(f"nothing reads what '{op.name}' computes", location=location_of(op))


def lanes_of(launch: KernelOp) -> Iterator[int]:
    """Numbers of lanes that divide all rows, and the halves of heads that are turned."""
    common = reduce(gcd, columns_of(launch), 0)
    fitting = [lanes for lanes in (1, 2, 4, 8, FLOATS) if common % lanes == 0]
    yield from fitting if common else [FLOATS]


def columns_of(launch: KernelOp) -> Iterator[int]:
    """What the lanes of a launch must divide."""
    for op in launch.body.block.ops:
        if isinstance(op, RmsNormOp):
            yield from (last_of(op.input), last_of(op.weight))
        elif isinstance(op, RopeOp):
            yield last_of(op.cos)
        elif isinstance(op, AttentionOp):
            yield last_of(op.keys)
        elif isinstance(op, AppendKVOp):
            yield last_of(op.cache)
        elif isinstance(op, GluOp | SoftmaxOp | arith.AddfOp):
            yield last_of(op.results[0])
        elif isinstance(op, ArrayProductOp) and not is_alone(op):
            yield last_of(op.operands[0])


def last_of(value: SSAValue) -> int:
    """The last dimension of a tensor."""
    type_ = value.type
    return type_.get_shape()[-1] if isinstance(type_, TensorType) else FLOATS
