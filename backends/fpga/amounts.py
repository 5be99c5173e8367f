"""What small parts of a kernel take of a device: f32 operators, memories, FIFOs."""

from collections.abc import Mapping
from math import ceil

from nybble.backends.fpga.rtl.resource_model import Count, block_ram, lut_ram
from nybble.dialects.fpga.types import StreamType

Amounts = Mapping[str, float]

FIFO_LUTS = 0.6
"""LUTs for each bit of a shallow FIFO's word (assumed: shift registers and their control)."""
FLOAT_ADD = {"lut": 220, "ff": 320, "dsp": 2}
FLOAT_MULTIPLY = {"lut": 80, "ff": 120, "dsp": 3}
"""An f32 adder and multiplier of Vitis HLS (AMD PG060: medium and full use of DSP48E2)."""
FLOAT_DIVIDE = {"lut": 800, "ff": 1400}
FLOAT_SQRT = {"lut": 500, "ff": 800}
FLOAT_COMPARE = {"lut": 70, "ff": 40}
"""Without DSP blocks (PG060: a digit recurrence, unrolled)."""
SHALLOW = 64
"""Words that are kept in LUTs rather than in block RAM."""


def add(total: dict[str, float], more: Amounts, times: float = 1) -> None:
    """Add amounts to a total, in place."""
    for name, count in more.items():
        total[name] += times * count


def fifo(type_: StreamType) -> Amounts:
    """A FIFO: shift registers of LUTs, or a memory where it is deep."""
    if type_.depth.data > SHALLOW:
        return {"lut": 60, "ff": 60, **memory(type_.depth.data, type_.word_bits)}
    return {"lut": FIFO_LUTS * type_.word_bits + 10, "ff": 1.2 * type_.word_bits + 10}


def counts(found: Count) -> Amounts:
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
        return {**counts(lut_ram(words, bits, 1)), "ff": bits}
    return counts(block_ram(words, bits))
