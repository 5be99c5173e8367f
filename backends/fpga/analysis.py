"""How long a kernel takes and what it needs of a device, read off its processes.

Cycles: every process starts an iteration in each cycle, all run at the same time, and a process
waits for the first word of each of its streams; the last to end is the kernel's end. Resources: a
rule for each kind of process, of what its template unrolls.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from xdsl.ir import Operation

from nybble.backends.fpga.amounts import FLOAT_ADD, FLOAT_MULTIPLY, Amounts, add, fifo, memory
from nybble.backends.fpga.row_costs import ROW_RULES
from nybble.costmodel.targets.target import RESOURCES, Target
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.arrays import ArrayOp, BuildTablesOp, RescaleOp
from nybble.dialects.fpga.attrs import ENTRIES, LookupAttr, SparseAttr, ValuesAttr
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.processes import ProcessOp, QuantizeOp, ReadOp, WriteOp
from nybble.dialects.fpga.types import StreamType

FILL = 8
"""Cycles of a pipeline from its first iteration's start to its end (assumed)."""
USABLE = 0.8
"""The share of a device's resources that a kernel may take, so that it can be routed (assumed)."""
NARROW_PRODUCT = 2.2
"""LUTs of a product of 8 bits, over the square of the other factor's bits: of 96 products of 2, 3
and 5 bits, as Yosys synthesizes them for UltraScale+."""
TREE = 0.6
"""LUTs of a sum, for each bit of an entry, as Yosys makes trees of 32 and 64 entries."""
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
    """When the first of a stream's words can be read, and the last, in cycles from the start."""

    first: int
    last: int

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
    end = max((one.last for one in passing.values()), default=0)
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
    ends = [one.last + op.tail() for one, _ in inputs]
    return Passing(first, max([start + op.cycles(), *ends]) + FILL)


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
    """An adder for each element, tables or narrow multipliers, and the sums that are kept."""
    tiling, element = op.tiling, op.element
    copies = tiling.sums * tiling.lanes.data * element.fields
    total = dict.fromkeys(RESOURCES, 0.0)
    if isinstance(element, LookupAttr):
        add(total, memory(2 * ENTRIES, element.entry_bits), copies)
        add(total, {"lut": TREE * element.entry_bits, "ff": element.entry_bits + 2}, copies)
    else:
        assert isinstance(element, ValuesAttr)
        bits = element.value_bits
        if isinstance(element, SparseAttr):
            shared = 2 if element.pair(tiling) else 1
            choosing = 8 * ceil(element.of.data / 4) * (1 if element.is_shared else shared)
            add(total, {"dsp": 1, "lut": choosing + 20, "ff": 40}, copies / shared)
        else:
            product = NARROW_PRODUCT * bits**2 + 8 + bits + 4
            add(total, {"lut": product, "ff": 2 * (8 + bits)}, copies)
        add(total, {"ff": 16 * tiling.wide.data * tiling.tile})
    dots = op.made()[0]
    add(total, memory(tiling.row_blocks, dots.word_bits))
    add(total, {"lut": dots.word_bits, "ff": dots.word_bits})
    return total


def _build_tables(op: BuildTablesOp) -> Amounts:
    sums = op.ways.value.data * op.tiling.wide.data
    adders = sums * op.element.width
    bits = op.element.entry_bits
    return {"lut": adders * (bits + 1) + 60, "ff": adders * 24 + 80}


def _rescale(op: RescaleOp) -> Amounts:
    total = dict.fromkeys(RESOURCES, 0.0)
    sums = op.tiling.sums
    add(total, FLOAT_MULTIPLY, 2 * sums)
    add(total, FLOAT_ADD, sums)
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
    ArrayOp: lambda op: op.tiling.tiles_per_group * op.steps,
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
