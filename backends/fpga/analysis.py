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

from nybble.backends.fpga.array_circuit import row_resources
from nybble.backends.fpga.rtl.emit import Module, Wire, bits
from nybble.backends.fpga.rtl.resource_model import Count, block_ram, counted, lut_ram
from nybble.backends.fpga.rtl.sums import tree
from nybble.costmodel.targets.target import RESOURCES, Target
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.arrays import ArrayOp, BuildTablesOp
from nybble.dialects.fpga.attrs import ENTRIES, LookupAttr, SparseAttr, TilingAttr
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.processes import ProcessOp, QuantizeOp, ReadOp, WriteOp
from nybble.dialects.fpga.scales import RescaleOp, ScaleGroupsOp
from nybble.dialects.fpga.types import StreamType

Amounts = Mapping[str, float]

FILL = 8
"""Cycles of a pipeline from its first iteration's start to its end (assumed)."""
USABLE = 0.8
"""The share of a device's resources that a kernel may take, so that it can be routed (assumed)."""
SHALLOW = 64
"""Words of the deepest memory that is made of LUTs."""
FIFO_LUTS = 0.6
"""LUTs for each bit of a shallow FIFO's word (assumed: shift registers and their control)."""
FLOAT_ADD = {"lut": 220, "ff": 320, "dsp": 2}
FLOAT_MULTIPLY = {"lut": 80, "ff": 120, "dsp": 3}
"""An f32 adder and multiplier of Vitis HLS (AMD PG060: medium and full use of DSP48E2)."""
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


def analyse(kernel: KernelOp) -> Analysis:
    """The cycles and resources of a kernel; raises NybbleError for a process without a rule."""
    start: dict[Operation, int] = {}
    end: dict[Operation, int] = {}
    names: dict[str, int] = {}
    for index, op in enumerate(kernel.processes):
        before = [one.owner for one in op.streams if isinstance(one.owner, ProcessOp)]
        start[op] = max((start[one] + first_word(one) for one in before), default=0)
        last = max((end[one] - idle(one) + behind(op) for one in before), default=0)
        end[op] = max(start[op] + op.cycles(), last) + FILL
        names[f"{op.name.split('.')[1]}_{index}"] = op.cycles()
    return Analysis(max(end.values()), resources(kernel), names)


def idle(op: ProcessOp) -> int:
    """Cycles of a process after the last word that it writes: an array may wait for columns."""
    if not isinstance(op, ArrayOp):
        return 0
    return op.steps - op.tiling.row_blocks * op.element.terms


def behind(op: ProcessOp) -> int:
    """Cycles that a process needs at most after the last word that it reads was written.

    All read as fast as words come but bit-serial rescaling: an array gives the sums of all rows in
    its last tile, which wait for their turn.
    """
    if not isinstance(op, ScaleGroupsOp):
        return 0
    return op.tiling.row_blocks * max(op.code.bitwidth - op.element.terms, 0)


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


def add(total: dict[str, float], more: Amounts, times: float = 1) -> None:
    """Add amounts to a total, in place."""
    for name, count in more.items():
        total[name] += times * count


def fifo(type_: StreamType) -> Amounts:
    """A FIFO, in shift registers of LUTs, or in block RAM where it holds many words."""
    if type_.depth.data > 64:
        return {"lut": 40, "ff": 40, **memory(type_.depth.data, type_.word_bits)}
    return {"lut": FIFO_LUTS * type_.word_bits + 10, "ff": 1.2 * type_.word_bits + 10}


def amounts(found: Count) -> Amounts:
    """Counts of the model of circuits, by the names of devices; block RAMs of 36 kbit."""
    return {
        "lut": found.luts,
        "ff": found.registers,
        "dsp": found.dsps,
        "bram": ceil(found.brams / 2),
    }


def memory(words: int, bits: int) -> Amounts:
    """A memory of a write and a read in each cycle."""
    if words <= SHALLOW:
        return {**amounts(lut_ram(words, bits, 1)), "ff": bits}
    return amounts(block_ram(words, bits))


def _array(op: ArrayOp) -> Amounts:
    """A row's products and sums for each row and token, what is held of columns, and the sums."""
    tiling, element = op.tiling, op.element
    total = dict.fromkeys(RESOURCES, 0.0)
    pair = element.pair(tiling) if isinstance(element, SparseAttr) else ""
    width = element.dot_bits(tiling.group.data)
    add(total, amounts(row_resources(element, tiling.lanes.data, width, pair)), tiling.sums)
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
    add(total, amounts(counted(module, dsps=False)), sums)
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
    add(total, {"lut": 40 * 16 + 800, "ff": 1200})  # comparisons, and a division
    add(total, {"lut": 250, "ff": 150}, wide)  # a float to an integer
    add(total, memory(max(op.tiling.cols.data // 16, 65), 32 * 16), wide)
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
}
"""Process -> what it takes. Estimates: only synthesis knows."""


def _row(tiling: TilingAttr) -> int:
    return tiling.wide.data * -(-tiling.cols.data // 16)


FIRST: dict[type[ProcessOp], Callable[[Any], int]] = {
    QuantizeOp: lambda op: _row(op.tiling),
    ReadOp: lambda op: 0,
    BuildTablesOp: lambda op: ENTRIES,
    ArrayOp: lambda op: op.tiling.tiles_per_group * op.steps + op.element.terms - 1,
    ScaleGroupsOp: lambda op: ((op.groups - 1) * op.tiling.row_blocks + 1) * op.code.bitwidth - 1,
    RescaleOp: lambda op: (op.tiling.groups - 1) * op.tiling.row_blocks,
    WriteOp: lambda op: 0,
}
"""Process -> iterations before the first word that it writes."""


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
