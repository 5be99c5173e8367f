"""A record of weights in shared memory: what a lane reads of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.dialects.builtin import f32, i32

from nybble.backends.building.values import Value, vec
from nybble.backends.gpu.builder import ELEMENTS, GpuBuilder
from nybble.backends.gpu.packing.stream import LANES, LOAD, WORD, StreamLayout


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
    _loaded: dict[tuple[int, int], list[Value]] = field(default_factory=dict, init=False)

    def unit_words(self, unit: int) -> list[Value]:
        """The words of this lane of a unit."""
        b, layout = self.b, self.layout
        mine = b.offset(self.place, self.lane * LOAD)
        found: list[Value] = []
        for load in range(layout.loads):
            at = (unit * layout.loads + load) * LANES * LOAD
            found += b.lanes_of(b.load(b.offset(mine, at), vec(4, i32)))
        return found

    def table(self) -> list[Value]:
        """The words of the record's table, none if it has none."""
        if not self.layout.has_table:
            return []
        at = self.b.offset(self.place, self.layout.table_start)
        return self.b.lanes_of(self.b.load(at, vec(LOAD // WORD, i32)))

    def scales(self, kind: int, group: int) -> list[Value]:
        """f32 of each fragment's two rows in a group of the record. kind: 0 scales, 1 zeros."""
        b, numbers = self.b, list[Value]()
        for word in self.scale_words(kind, group):
            match self.layout.scale:
                case "bf16":
                    numbers += [b.reinterpret(one, f32) for one in (word << 16, word & -65536)]
                case "f16":
                    pair = b.lanes_of(b.reinterpret(word, vec(2, ELEMENTS["f16"])))
                    numbers += [b.to_float(one) for one in pair]
                case _:
                    numbers.append(b.reinterpret(word, f32))
        return numbers

    def all_scales(self, kinds: int) -> list[list[list[Value]]]:
        """`scales` by kind and group."""
        groups = range(self.layout.groups)
        return [[self.scales(kind, group) for group in groups] for kind in range(kinds)]

    def halves(self, kind: int, group: int) -> list[Value]:
        """As `scales` that are stored as 16-bit floats, each as two equal ones."""
        picked = [
            (word, pick) for word in self.scale_words(kind, group) for pick in (0x1010, 0x3232)
        ]
        return [self.b.permute(word, word, pick) for word, pick in picked]

    def scale_words(self, kind: int, group: int) -> list[Value]:
        """This lane's scales or zeros of a group, as i32.

        They are loaded as widely as they are aligned, when first asked for: a record's groups have
        more than registers hold beside sums.
        """
        layout = self.layout
        size = layout.lane_scale_bytes // layout.groups
        places = [
            divmod(at, layout.scale_load) for at in range(group * size, (group + 1) * size, WORD)
        ]
        return [self._scale_load(kind, load)[at // WORD] for load, at in places]

    def _scale_load(self, kind: int, load: int) -> list[Value]:
        """The words of one load of scales or zeros."""
        if (kind, load) not in self._loaded:
            b, layout, size = self.b, self.layout, self.layout.scale_load
            mine = b.offset(self.place, self.lane.shr(2) * size)
            first = layout.code_bytes + kind * layout.scale_bytes
            at = b.offset(mine, first + load * 8 * size)
            self._loaded[kind, load] = b.lanes_of(b.load(at, vec(size // WORD, i32)))
        return self._loaded[kind, load]
