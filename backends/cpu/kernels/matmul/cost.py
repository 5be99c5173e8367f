"""Estimated cycles of a kernel on one thread: the slower of its instructions and of its reads.

Counts of instructions are for vectors of 512 bits; a level with narrower registers takes as many
more. The estimates compare dataflows on one machine; they do not predict times.
"""

from nybble.backends.cpu.isa import Isa

PORTS = 2
"""Vector instructions that start in a cycle (assumed for every level)."""
WIDEST = 512
READS = ((1 << 20, 62.0), (16 << 20, 25.0))
"""(working set in bytes, bytes read per cycle), measured on Zen 5 at 3.8 GHz: L2, L3."""
DRAM_READS = 11.0


def cycles(isa: Isa, instructions: float, read: int) -> float:
    """Cycles of `instructions` on vectors of 512 bits that stream `read` bytes of weights."""
    registers = WIDEST / isa.vector_bits
    speed = next((speed for size, speed in READS if read <= size), DRAM_READS)
    return max(instructions * registers / PORTS, read / speed)
