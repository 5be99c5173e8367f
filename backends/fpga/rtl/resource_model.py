"""What an element takes of a device, from its spec alone: no synthesis.

The circuit is generated (which takes milliseconds) and what is in it is counted: an adder takes a
LUT for each bit of its wider operand, logic in front of a register one for each bit, a memory the
primitives that are cheapest. What was fitted to Yosys are the factors below; `recorded.json` has
the designs that they were fitted to, and others.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nybble.backends.fpga.rtl.bit_products import SERIAL
from nybble.backends.fpga.rtl.coded import CodedSpec
from nybble.backends.fpga.rtl.designs import SPARSE, Design
from nybble.backends.fpga.rtl.emit import Module
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.narrow_products import MULTIPLY
from nybble.backends.fpga.rtl.sparse_pe import SparseSpec
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.backends.fpga.rtl.synthesis import Resources
from nybble.dialects.lowbit import formats

RECORDED = Path(__file__).with_name("recorded.json")
PACKED_REGISTERS = 15
"""Registers of two packed activations that a DSP takes in."""
CHOICE_LUTS = 0.36
"""LUTs for each bit and each input but one of a choice."""
NARROW_PRODUCT = 2.2
"""LUTs of a product of 8 bits, over the square of the other factor's bits: of 96 products of 2, 3
and 5 bits, as Yosys synthesizes them for UltraScale+."""
_LUT_RAMS = {
    32: ((7, 2, 8), (3, 2, 4), (1, 14, 8), (1, 6, 4)),
    64: ((7, 1, 8), (3, 1, 4), (1, 7, 8), (1, 3, 4)),
}
"""Depth -> (reads, bits, LUTs) of the primitives with one write port (UG974)."""
_BLOCKS = {512: 36, 1024: 18, 2048: 9, 4096: 4, 8192: 2, 16384: 1}
"""Depth -> bits of a word of a block RAM of 18 kbit (UG573)."""


@dataclass
class Count:
    """A sum of resources under way."""

    luts: float = 0
    lutram: int = 0
    registers: int = 0
    dsps: float = 0
    brams: int = 0

    def include(self, other: "Count") -> None:
        """Adds another."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


def predicted(design: Design) -> Resources:
    """The resources of a design; accumulators are taken to be deep enough for block RAM.

    Raises RtlError for multipliers that are left to synthesis.
    """
    if design.kind == MULTIPLY:
        raise RtlError(
            f"'{design.top}' has multipliers that are left to synthesis", accepted="other kinds"
        )
    found = counted(design.modules[-1], design.kind == SPARSE)
    return Resources(
        round(found.luts), found.lutram, found.registers, round(found.dsps), found.brams
    )


@dataclass(frozen=True)
class Recorded:
    """What Yosys counted of a design; part: "fit", or "held_out" of what factors are fitted to."""

    design: Design
    part: str
    resources: Resources


def recorded() -> list[Recorded]:
    """The syntheses of `recorded.json`."""
    rows: list[dict[str, Any]] = json.loads(RECORDED.read_text())
    names = [one.name for one in fields(Resources)]
    return [
        Recorded(_design(row), row["part"], Resources(*(row[name] for name in names)))
        for row in rows
    ]


def _design(row: dict[str, Any]) -> Design:
    spec = dict(row["spec"])
    if row["kind"] == SPARSE:
        return Design(SPARSE, SparseSpec(**spec))
    element = formats.get(f"{spec.pop('element')}:g=32:s=f16").element
    kind = CodedSpec if row["kind"] == SERIAL else PeSpec
    return Design(row["kind"], kind(element, **spec))


def choice_luts(inputs: float, width: int) -> float:
    """LUTs of a choice of one of some inputs."""
    return CHOICE_LUTS * width * (inputs - 1)


def products(left: int, right: int, count: int) -> Count:
    """Products of signed factors of so many bits each, without DSP blocks; `left` the wider."""
    return Count(count * NARROW_PRODUCT * right**2 * left / 8, registers=count * (left + right))


def counted(module: Module, dsps: bool) -> Count:
    """What is in a module and in all that it uses. dsps: whether factors are multiplied in them."""
    tally = module.tally
    luts = tally.adders + tally.logic + tally.shifts + tally.compared / 5
    found = Count(luts, registers=tally.registers)
    found.luts += sum(choice_luts(inputs, width) for inputs, width in tally.choices)
    if dsps:
        found.dsps = len(tally.factors)
        packed = sum(left > right for left, right in tally.factors)
        found.registers -= PACKED_REGISTERS * packed
    for depth, width, reads, late in tally.memories:
        found.include(block_ram(depth, width) if late else lut_ram(depth, width, reads))
    for part in tally.parts:
        found.include(counted(part, dsps))
    return found


def lut_ram(depth: int, width: int, reads: int) -> Count:
    """A memory of up to 64 words in LUTs, of the primitives that take fewest."""
    size = next(size for size in _LUT_RAMS if depth <= size)
    luts = min(
        -(-reads // ports) * -(-width // columns) * cost for ports, columns, cost in _LUT_RAMS[size]
    )
    return Count(luts, luts)


def block_ram(depth: int, width: int) -> Count:
    """A memory in block RAM; `brams` are of 18 kbit."""
    deep = next((size for size in _BLOCKS if depth <= size), max(_BLOCKS))
    return Count(brams=-(-width // _BLOCKS[deep]) * -(-depth // deep))
