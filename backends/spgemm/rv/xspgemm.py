"""The instructions of the profile `+xspgemm`: their encodings, and how they get into code.

All are of the R form on custom-0: `rd = memory[rs1]`, and memory[rs1] is combined with rs2 at once.
LLVM knows none of them. A program has an atomic update that nothing else emits in the place of each
(its carrier: the same operands, the same effect on memory as far as LLVM is concerned), and its
assembly gets the instruction in place of the carrier. docs/spgemm-isa.md is the reference.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nybble.dialects.atomics import Change

CUSTOM_0 = 0x0B


@dataclass(frozen=True)
class Instruction:
    """funct3, funct7: its encoding. carrier: see the module; mnemonic: the carrier's."""

    name: str
    funct3: int
    funct7: int
    carrier: Change
    mnemonic: str

    def text(self, rd: str, rs1: str, rs2: str) -> str:
        """What GNU's assembler takes."""
        return f".insn r {CUSTOM_0:#x}, {self.funct3}, {self.funct7}, {rd}, {rs1}, {rs2}"

    @property
    def match(self) -> int:
        """The bits of the word that are the same in every use."""
        return self.funct7 << 25 | self.funct3 << 12 | CUSTOM_0


MASK = 0xFE00_707F
"""The bits that `Instruction.match` speaks of."""
TAKE = Instruction("sp.take", 2, 0, Change.OR, "amoor.d")
ADDITIONS: Mapping[str, Instruction] = {
    "i64": Instruction("sp.add.d", 3, 0, Change.XOR, "amoxor.d"),
    "f64": Instruction("sp.fadd.d", 3, 1, Change.MAX, "amomax.d"),
    "f32": Instruction("sp.fadd.s", 3, 2, Change.MIN, "amomin.d"),
}
"""Element type -> the instruction that adds to one in the scratchpad."""
INSTRUCTIONS = (TAKE, *ADDITIONS.values())
_BY_MNEMONIC = {one.mnemonic: one for one in INSTRUCTIONS}
_CARRIER = re.compile(r"\b(amo(?:or|xor|max|min)\.d)\s+(\w+), (\w+), \((\w+)\)")


def substitute(assembly: str) -> str:
    """The assembly with every carrier replaced by its instruction."""

    def replaced(found: re.Match[str]) -> str:
        mnemonic, rd, rs2, rs1 = found.groups()
        return _BY_MNEMONIC[mnemonic].text(rd, rs1, rs2)

    return _CARRIER.sub(replaced, assembly)
