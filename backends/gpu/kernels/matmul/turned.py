"""A record of weights read so that columns come in their natural order, for `wgmma`.

`mma` may have columns in any order, as its activations are loaded to match, and so a lane's four
columns of a tile are neighbours. `wgmma` reads activations from shared memory as they are: there,
lane t of four must have columns 2t, 2t+1, 2t+8, 2t+9. These lie in the words of other lanes, and
are read from there; what a lane needs of a word is its lower or its upper columns by its own
number, one shift. So both kernels read one packing.

For this the 16 bytes that lanes have of a load lie in another order in shared memory, so that the
eight lanes of one t are in different banks.
"""

from dataclasses import dataclass
from functools import cached_property

from xdsl.dialects.builtin import i32

from nybble.backends.building.values import Value, vec
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.kernels.matmul.decode import Words
from nybble.backends.gpu.packing.stream import LANES, LOAD, TILES, StreamLayout

WORD = 4
WORDS = LOAD // WORD


@dataclass(frozen=True)
class Source:
    """Where lanes with t below 2, and those above, find words: `distance` bytes apart, at the
    chunks of these lanes of four.
    """

    low: int
    high: int
    distance: int


class Turned:
    """Reads records of a layout. lane: this lane's index."""

    def __init__(self, b: GpuBuilder, layout: StreamLayout, lane: Value):
        self.b = b
        self.layout = layout
        self.lane = lane
        self.row = lane.shr(2)
        self.quad = lane & 3
        self.late = self.quad > 1
        self.shift = (self.quad & 1) * layout.placement.upper
        tiles = [(tile, upper) for tile in range(TILES) for upper in (0, 1)]
        sources = [self.source(*one, word)[0] for one in tiles for word in self.firsts]
        self.places = {one: self.place(one) for one in dict.fromkeys(sources)}

    @cached_property
    def width(self) -> int:
        """Words that are loaded at once."""
        words = self.layout.placement.words
        return min(WORDS, words & -words)

    @property
    def firsts(self) -> range:
        """The first word of each load of a tile's."""
        return range(0, self.layout.placement.words, self.width)

    def turn(self, load: int) -> int:
        """What exchanges lanes of four in a load: whole loads of a lane are of two tiles, which
        are read at once.
        """
        return load % 2 if self.width == WORDS else 0

    def source(self, tile: int, upper: int, word: int) -> tuple[Source, int]:
        """Where a word of a tile is found, and the bytes that all lanes add."""
        places: list[tuple[int, int]] = []
        for late in (0, 1):
            held, quad = self.layout.holder(tile, upper, late)
            load, index = divmod(held * self.layout.placement.words + word, WORDS)
            at = load * LANES * LOAD + index * WORD
            places.append((quad ^ self.turn(load), at))
        (low, first), (high, second) = places
        return Source(low, high, second - first), first

    def chunk(self, quad: Value | int) -> Value:
        """The place of the 16 bytes of a lane of four, of this lane's row."""
        row = self.row.shr(1)
        order = (row & 1) * 2 + row.shr(1)
        return (self.row * 4 + (order ^ quad)) * LOAD

    def place(self, source: Source) -> Value:
        """This lane's own bytes of a source."""
        low = self.chunk(source.low)
        if (source.high, source.distance) == (source.low, 0):
            return low
        return self.b.select(self.late, self.chunk(source.high) + source.distance, low)

    def copied_to(self, load: int) -> Value:
        """Where this lane's own 16 bytes of a load are copied to."""
        return self.chunk(self.quad ^ self.turn(load))

    def words(self, record: Value, unit: int, tile: int, upper: int) -> Words:
        """The words of a tile in the natural order, with this lane's columns lowest."""
        b = self.b
        found: list[Value] = []
        for word in self.firsts:
            source, at = self.source(tile, upper, word)
            at += unit * self.layout.loads * LANES * LOAD
            place = b.offset(b.offset(record, self.places[source]), at)
            loaded = b.load(place, vec(self.width, i32) if self.width > 1 else i32)
            found += b.lanes_of(loaded) if self.width > 1 else [loaded]
        return Words(b, [one.shr(self.shift) for one in found])
