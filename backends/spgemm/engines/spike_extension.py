"""The instructions of `+xspgemm` and the DMA device, as Spike loads them.

Harts of Spike take turns, so an instruction is atomic by itself. See docs/spgemm-isa.md.
"""

import struct
from typing import Any

from riscv import dev, isa
from riscv.processor import insn_desc_t  # pyright: ignore[reportMissingImports]

CUSTOM_0, MASK = 0x0B, 0xFE00_707F
ALL_64 = (1 << 64) - 1
DESCRIPTOR = 64
COPIES = (0, 32)
"""Offsets of the words of each copy."""
GO = 24
"""Offset of the word of a descriptor that starts it."""


def _add_integers(there: int, given: int) -> int:
    return (there + given) & ALL_64


def _add_doubles(there: int, given: int) -> int:
    one, other = struct.unpack("<dd", struct.pack("<QQ", there, given))
    return struct.unpack("<Q", struct.pack("<d", one + other))[0]


def _update(width: int, change: Any) -> Any:
    """The function of an instruction that changes a word of `width` bytes."""

    def execute(hart: Any, insn: Any, pc: int) -> int:
        registers, memory = hart.state.XPR, hart.mmu
        address, given = registers[insn.rs1], registers[insn.rs2] & ALL_64
        there = _load(memory, address, width)
        _store(memory, address, width, change(there, given))
        registers.write(insn.rd, there)
        return pc + 4

    return execute


def _add_singles(there: int, given: int) -> int:
    import numpy as np

    words = np.array([there, given & 0xFFFF_FFFF], np.uint32).view(np.float32)
    return int((words[:1] + words[1:]).view(np.uint32)[0])


def _load(memory: Any, address: int, width: int) -> int:
    found = memory.load_reserved_64(address) if width == 8 else memory.load_reserved_32(address)
    return found & ((1 << 8 * width) - 1)


def _store(memory: Any, address: int, width: int, value: int) -> None:
    if width == 8:
        memory.load_reserved_64(address)
        memory.store_conditional_64(address, value)
    else:
        memory.load_reserved_32(address)
        memory.store_conditional_32(address, value)


def _copy(memory: Any, source: int, target: int, size: int) -> None:
    width = 8 if (source | target | size) % 8 == 0 else 4
    for at in range(0, size, width):
        _store(memory, target + at, width, _load(memory, source + at, width))


TABLE = {
    (2, 0): _update(8, _add_integers),
    (3, 0): _update(8, _add_integers),
    (3, 1): _update(8, _add_doubles),
    (3, 2): _update(4, _add_singles),
}
"""funct3 and funct7 -> what the instruction does."""


@isa.register("xspgemm")
class Xspgemm(isa.ISA):
    """The instructions."""

    def get_instructions(self, proc: Any) -> list[Any]:
        """Their encodings; one function serves every width and privilege."""
        return [
            insn_desc_t(funct7 << 25 | funct3 << 12 | CUSTOM_0, MASK, *[execute] * 8)
            for (funct3, funct7), execute in TABLE.items()
        ]

    def get_disasms(self, proc: Any) -> list[Any]:
        """None: Spike prints the words."""
        return []

    def get_csrs(self, proc: Any) -> list[Any]:
        """None."""
        return []

    def reset(self, proc: Any) -> None:
        """Nothing is kept."""


@dev.register("xspgemm_dma")
class Dma(dev.MMIO):
    """A descriptor for each hart: source, target and bytes of two copies, and what starts them."""

    def __init__(self, sim: Any, args: str | None = None):
        super().__init__(sim, args)
        self._words: dict[int, int] = {}

    def load(self, addr: int, size: int) -> bytes:
        """A word; that which starts a copy is 0 when it is done, which is at once."""
        return self._words.get(addr, 0).to_bytes(size, "little")

    def store(self, addr: int, data: Any) -> None:
        """Write a word of a descriptor, and copy if it is the one that starts the copies."""
        hart, offset = divmod(addr, DESCRIPTOR)
        if offset != GO:
            self._words[addr] = int.from_bytes(bytes(data), "little")
            return
        memory = self.sim.get_core(hart).mmu
        for first in COPIES:
            at = hart * DESCRIPTOR + first
            _copy(memory, *(self._words.get(at + word, 0) for word in (0, 8, 16)))

    def size(self) -> int:
        """Bytes of the address range."""
        return 0x1000
