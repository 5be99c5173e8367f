"""How long a kernel takes and what it needs of a device, read off its processes.

Cycles: every process starts an iteration in each cycle, all run at the same time, and a process
waits for the first word of each of its streams; the last to end is the kernel's end. Resources: a
rule for each kind of process, of what its template unrolls. Integers, their memories and choices
are counted as those of circuits are, by `rtl.resource_model`; f32 operators and ports are tabled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from xdsl.ir import Operation

from nybble.backends.fpga.amounts import (
    FLOAT_ADD,
    FLOAT_MULTIPLY,
    Amounts,
    add,
    counts,
    fifo,
    memory,
)
from nybble.backends.fpga.array_circuit import row_resources
from nybble.backends.fpga.row_costs import ROW_RULES
from nybble.backends.fpga.rtl.emit import Module, Wire, bits
from nybble.backends.fpga.rtl.resource_model import counted
from nybble.backends.fpga.rtl.sums import tree
from nybble.costmodel.targets.target import RESOURCES, Target
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.arrays import ArrayOp, BuildTablesOp
from nybble.dialects.fpga.attrs import ENTRIES, LookupAttr, SparseAttr
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.processes import ProcessOp, QuantizeOp, ReadOp, WriteOp
from nybble.dialects.fpga.scales import RescaleOp, ScaleGroupsOp
from nybble.dialects.fpga.types import StreamType

FILL = 8
"""Cycles of a pipeline from its first iteration's start to its end (assumed)."""
USABLE = 0.8
"""The share of a device's resources that a kernel may take, so that it can be routed (assumed)."""
PORT = {"lut": 1500, "ff": 2500, "bram": 7.5}
"""An AXI master of 512 bits (assumed)."""


@dataclass(frozen=True)
class Analysis:
    """A kernel's cycles, and how many of each resource it takes. processes: cycles of each."""

    cycles: int
    resources: Mapping[str, int]
    processes: Mapping[str, int]

    def share(self, device: Target) -> float:
        """The share of a device's scarcest resource that the kernel takes."""
        have = ((name, device.resources.get(name)) for name in self.resources)
        return max(self.resources[name] / fact.value for name, fact in have if fact is not None)


@dataclass(frozen=True)
class Passing:
    """When the first of a process's words can be read, the last, and when it ends, in cycles."""

    first: int
    last: int
    end: int

    def at(self, word: int, words: int) -> int:
        """When so many of the words can be read, which come evenly."""
        return self.first + (self.last - self.first) * (word - 1) // max(words - 1, 1)


def analyse(kernel: KernelOp) -> Analysis:
    """The cycles and resources of a kernel; raises NybbleError for a process without a rule."""
    passing: dict[Operation, Passing] = {}
    names: dict[str, int] = {}
    for index, op in enumerate(kernel.processes):
        passing[op] = passing_of(op, passing)
        names[f"{op.name.split('.')[1]}_{index}"] = op.cycles()
    end = max((one.end for one in passing.values()), default=0)
    return Analysis(end, resources(kernel), names)


def passing_of(op: ProcessOp, passing: Mapping[Operation, Passing]) -> Passing:
    """When a process writes, by when those before it do.

    It starts with the first words of all its streams. Its first word waits for as many as it takes
    before that, and its last one for what is left to do when the last word has come.
    """
    inputs: list[tuple[Passing, int]] = []
    for stream, lead in zip(op.streams, op.leads(), strict=True):
        if isinstance(stream.owner, ProcessOp):
            type_ = stream.type
            assert isinstance(type_, StreamType)
            before = passing[stream.owner]
            inputs.append((before, before.at(lead, type_.words.data)))
    start = max((one.first for one, _ in inputs), default=0)
    first = max([start + first_word(op), *(lead + FILL for _, lead in inputs)])
    tails = [one.last + op.tail() for one, _ in inputs]
    last, end = (max([start + op.cycles() - idle, *tails]) for idle in (op.idle(), 0))
    return Passing(first, last + FILL, end + FILL)


def first_word(op: ProcessOp) -> int:
    """Cycles from a process's start to the first word that it writes."""
    return FILL + FIRST[type(op)](op)


def resources(kernel: KernelOp) -> dict[str, int]:
    """How many of each resource the processes, FIFOs and ports of a kernel take."""
    total = dict.fromkeys(RESOURCES, 0.0)
    for op in kernel.processes:
        add(total, RULES[type(op)](op))
    for stream in kernel.streams:
        assert isinstance(stream.type, StreamType)
        add(total, fifo(stream.type))
    for _ in kernel.body.block.args:
        add(total, PORT)
    return {name: ceil(count) for name, count in total.items()}


def _array(op: ArrayOp) -> Amounts:
    """A row's products and sums for each row and token, what is held of columns, and the sums."""
    tiling, element = op.tiling, op.element
    total = dict.fromkeys(RESOURCES, 0.0)
    pair = element.pair(tiling) if isinstance(element, SparseAttr) else ""
    width = element.dot_bits(tiling.group.data)
    add(total, counts(row_resources(element, tiling.lanes.data, width, pair)), tiling.sums)
    if not isinstance(element, LookupAttr):
        width = element.activation_planes or 8
        add(total, {"ff": 2 * width * tiling.wide.data * tiling.tile})
    dots = op.made()[0]
    add(total, memory(tiling.row_blocks, dots.word_bits))
    return total


def _build_tables(op: BuildTablesOp) -> Amounts:
    """A sum of a lane's columns, each times its digit, for each table and token."""
    element, module = op.element, Module("builder")
    most = (1 << (element.entry_bits - 1)) - 1
    tree(module, [module.register(bits("%a", 8)) for _ in range(element.width)])
    module.register(Wire("%entry", -most, most))
    total = dict.fromkeys(RESOURCES, 0.0)
    sums = op.ways.value.data * op.tiling.wide.data
    add(total, counts(counted(module, dsps=False)), sums)
    add(total, {"lut": 8 * element.width, "ff": 2 * 8 * element.width}, sums)
    add(total, {"lut": 60, "ff": 80})
    return total


def _scale_groups(op: ScaleGroupsOp) -> Amounts:
    total = dict.fromkeys(RESOURCES, 0.0)
    sums = op.tiling.sums
    add(total, {"lut": 2 * op.bits, "ff": 2 * op.bits}, sums)
    add(total, memory(op.tiling.row_blocks, op.bits * sums))
    return total


def _rescale(op: RescaleOp) -> Amounts:
    total = dict.fromkeys(RESOURCES, 0.0)
    sums = op.tiling.sums
    add(total, FLOAT_MULTIPLY, (3 if op.has_zeros else 2) * sums)
    add(total, FLOAT_ADD, (1 + op.has_zeros + (op.bias is not None)) * sums)
    add(total, {"lut": 150, "ff": 200}, sums)  # an integer to a float
    add(total, memory(op.tiling.row_blocks, 32 * sums))
    return total


def _quantize(op: QuantizeOp) -> Amounts:
    total = dict.fromkeys(RESOURCES, 0.0)
    wide = op.tiling.wide.data
    add(total, FLOAT_MULTIPLY, wide)
    add(total, {"lut": 40 * op.lanes + 800, "ff": 1200})  # comparisons, and a division
    add(total, {"lut": 250, "ff": 150}, wide)  # a float to an integer
    add(total, memory(max(op.row, 65), 32 * op.lanes), wide)
    return total


def _mover(op: ReadOp | WriteOp) -> Amounts:
    return {"lut": 100, "ff": op.type.word_bits + 60}


RULES: dict[type[ProcessOp], Callable[[Any], Amounts]] = {
    ArrayOp: _array,
    BuildTablesOp: _build_tables,
    ScaleGroupsOp: _scale_groups,
    RescaleOp: _rescale,
    QuantizeOp: _quantize,
    ReadOp: _mover,
    WriteOp: _mover,
    **ROW_RULES,
}
"""Process -> what it takes. Estimates: only synthesis knows."""


FIRST: dict[type[ProcessOp], Callable[[Any], int]] = {
    QuantizeOp: lambda op: op.tiling.wide.data * op.row,
    ReadOp: lambda op: 0,
    BuildTablesOp: lambda op: ENTRIES,
    ArrayOp: lambda op: op.tiling.tiles_per_group * op.steps + op.element.terms - 1,
    ScaleGroupsOp: lambda op: ((op.groups - 1) * op.tiling.row_blocks + 1) * op.code.bitwidth - 1,
    RescaleOp: lambda op: (op.tiling.groups - 1) * op.tiling.row_blocks,
    WriteOp: lambda op: 0,
    **dict.fromkeys(ROW_RULES, lambda op: sum(op.leads()) - len(op.streams)),
}
"""Process -> iterations before the first word that it writes; on rows, what it reads says it."""


class FitError(NybbleError):
    """A kernel that is too large for a device."""


def check_fits(found: Analysis, device: Target) -> None:
    """Raise FitError with every resource that a device has too little of, and by how much."""
    short = shortages(found, device)
    if short:
        raise FitError(
            f"the kernel does not fit {device.name}: {'; '.join(short)}",
            accepted="a larger device, fewer rows or fewer columns",
        )


def shortages(found: Analysis, device: Target) -> list[str]:
    """Resources that a device has too little of, each with how many are missing."""
    have = dict.fromkeys(found.resources, 0)
    have |= {name: int(USABLE * fact.value) for name, fact in device.resources.items()}
    return [
        f"{count - have[name]:,} {name.upper()} too many ({count:,} of {have[name]:,})"
        for name, count in found.resources.items()
        if count > have[name]
    ]
