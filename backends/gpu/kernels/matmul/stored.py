"""A record of weights in shared memory: what a lane reads of it."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import f32, i32

from nybble.backends.building.values import Value, vec
from nybble.backends.gpu.builder import ELEMENTS, GpuBuilder
from nybble.backends.gpu.packing.stream import LANES, LOAD, StreamLayout


@dataclass(frozen=True)
class Tokens:
    """Where what a lane has of a tile of tokens begins: `offset` bytes after a pointer."""

    pointer: Value
    offset: int

    def moved(self, b: GpuBuilder, along: Value) -> Tokens:
        """The place so many bytes on."""
        return Tokens(b.offset(self.pointer, along), self.offset)


def all_moved(b: GpuBuilder, tokens: list[Tokens], along: Value) -> list[Tokens]:
    """All places so many bytes on; pointers that tiles share are moved once."""
    pointers = {id(one.pointer): one.moved(b, along).pointer for one in tokens}
    return [Tokens(pointers[id(one.pointer)], one.offset) for one in tokens]


@dataclass(frozen=True)
class Stored:
    """A record that begins at `place`, and this lane's index."""

    b: GpuBuilder
    layout: StreamLayout
    place: Value
    lane: Value

    def unit_words(self, unit: int) -> list[Value]:
        """The words of this lane of a unit."""
        b, layout = self.b, self.layout
        mine = b.offset(self.place, self.lane * LOAD)
        found: list[Value] = []
        for load in range(layout.loads):
            at = (unit * layout.loads + load) * LANES * LOAD
            found += b.lanes_of(b.load(b.offset(mine, at), vec(4, i32)))
        return found

    def scales(self, kind: int) -> list[list[Value]]:
        """By group: f32 of each fragment's two rows. kind: 0 scales, 1 zeros."""
        b, numbers = self.b, list[Value]()
        for word in self.scale_words(kind):
            match self.layout.scale:
                case "bf16":
                    numbers += [b.reinterpret(one, f32) for one in (word << 16, word & -65536)]
                case "f16":
                    pair = b.lanes_of(b.reinterpret(word, vec(2, ELEMENTS["f16"])))
                    numbers += [b.to_float(one) for one in pair]
                case _:
                    numbers.append(b.reinterpret(word, f32))
        return self.by_group(numbers)

    def halves(self, kind: int) -> list[list[Value]]:
        """As `scales` that are stored as 16-bit floats, each as two equal ones."""
        picked = [(word, pick) for word in self.scale_words(kind) for pick in (0x1010, 0x3232)]
        return self.by_group([self.b.permute(word, word, pick) for word, pick in picked])

    def by_group(self, values: list[Value]) -> list[list[Value]]:
        """Two values for each fragment, by group."""
        count = 2 * self.layout.placement.fragments
        return [values[i : i + count] for i in range(0, len(values), count)]

    def scale_words(self, kind: int) -> list[Value]:
        """This lane's scales or zeros, as i32, loaded as widely as they are aligned."""
        b, layout = self.b, self.layout
        size = layout.lane_scale_bytes
        first = layout.code_bytes + kind * layout.scale_bytes
        mine = b.offset(self.place, self.lane.shr(2) * size)
        most = min(LOAD, size & -size)
        words: list[Value] = []
        for at in range(first, first + size, most):
            words += b.lanes_of(b.load(b.offset(mine, at), vec(most // 4, i32)))
        return words
