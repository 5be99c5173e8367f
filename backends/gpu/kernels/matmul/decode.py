"""Codes in registers become fragments of floats: the A operand of `mma.m16n8k16`."""

from collections.abc import Sequence

from nybble.backends.building.values import Value
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.packing.placement import Placement


class Tile:
    """The words of one tile of 16 columns; words moved by the same distance are moved once."""

    def __init__(self, b: GpuBuilder, placement: Placement, words: Sequence[Value]):
        self.b = b
        self.placement = placement
        self.words = words
        self._moved: dict[tuple[int, int], Value] = {}

    def fragment(self, index: int) -> list[Value]:
        """The four registers of a fragment: floats that are `offset` above their codes."""
        return [self._register(index, register) for register in range(4)]

    def _register(self, fragment: int, register: int) -> Value:
        made: Value | int = self.placement.magic(fragment, register)
        for take in self.placement.takes(fragment, register):
            moved = self._shifted(take.word, take.shift)
            made = self.b.and_or(moved, take.mask * 0x10001, made)
        assert isinstance(made, Value)
        return made

    def _shifted(self, word: int, shift: int) -> Value:
        key = (word, shift)
        if key not in self._moved:
            value = self.words[word]
            moved = value.shr(shift) if shift > 0 else value << -shift if shift else value
            self._moved[key] = moved
        return self._moved[key]
