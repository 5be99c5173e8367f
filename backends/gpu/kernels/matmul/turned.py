"""A record of weights read so that columns come in their natural order, for `wgmma`.

`mma` may have columns in any order, as its activations are loaded to match, and so a lane's four
columns of a tile are neighbours. `wgmma` reads activations from shared memory as they are: there,
lane t of four must have columns 2t, 2t+1, 2t+8, 2t+9. These lie in the words of other lanes, and
are read from there; what a lane needs of a word is its lower or its upper columns by its own
number, one shift. So both kernels read one packing.

For this the 16 bytes that lanes have of a load lie in another order in shared memory, so that the
eight lanes of one t are in different banks.
"""

from dataclasses import dataclass, field
from functools import cached_property

from xdsl.dialects.builtin import i32

from nybble.backends.building.values import Value, vec
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.kernels.matmul.decode import Words
from nybble.backends.gpu.packing.stream import LANES, LOAD, TILES, WORD, StreamLayout

WORDS = LOAD // WORD


@dataclass(frozen=True)
class Source:
    """Where lanes with t below 2, and those above, find words: `distance` bytes apart, at the
    chunks of these lanes of four.
    """

    low: int
    high: int
    distance: int


@dataclass(frozen=True)
class Found:
    """Where a word is found: the bytes that all lanes add, and which word it is of a load."""

    source: Source
    first: int
    inner: int


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
        words = range(layout.placement.words)
        sources = [self.find(*one, word).source for one in tiles for word in words]
        self.places = {one: self.place(one) for one in dict.fromkeys(sources)}

    @cached_property
    def width(self) -> int:
        """Words that are loaded at once: all 16 bytes of a lane where lanes above and below read
        the same ones of different lanes, and so of the same banks if it were less.
        """
        words = self.layout.placement.words
        return WORDS if self.one_tile else min(WORDS, words & -words)

    @property
    def one_tile(self) -> bool:
        """Whether a lane's columns of a tile are all held in this tile."""
        return self.layout.run_columns == 16

    def turn(self, load: int) -> int:
        """What exchanges lanes of four in a load: whole loads of a lane are of two tiles, which
        are read at once.
        """
        return load % 2 if self.width == WORDS and not self.one_tile else 0

    def find(self, tile: int, upper: int, word: int) -> Found:
        """Where a word of a tile is found."""
        places: list[tuple[int, int]] = []
        inner = 0
        for late in (0, 1):
            held, quad = self.layout.holder(tile, upper, late)
            piece, inner = divmod(held * self.layout.placement.words + word, self.width)
            load, index = divmod(piece * self.width, WORDS)
            at = load * LANES * LOAD + index * WORD
            places.append((quad ^ self.turn(load), at))
        (low, first), (high, second) = places
        return Found(Source(low, high, second - first), first, inner)

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


@dataclass(frozen=True)
class TurnedRecord:
    """A record that begins at `place` in shared memory."""

    by: Turned
    place: Value
    _loaded: dict[tuple[int, Source, int], list[Value]] = field(default_factory=dict, init=False)

    def words(self, unit: int, tile: int, upper: int) -> Words:
        """The words of a tile in the natural order, with this lane's columns lowest."""
        words = range(self.by.layout.placement.words)
        found = [self.by.find(tile, upper, word) for word in words]
        moved = [self.load(unit, one)[one.inner].shr(self.by.shift) for one in found]
        return Words(self.by.b, moved)

    def load(self, unit: int, found: Found) -> list[Value]:
        """The words that are loaded with one, once."""
        by, key = self.by, (unit, found.source, found.first)
        if key not in self._loaded:
            at = found.first + unit * by.layout.loads * LANES * LOAD
            place = by.b.offset(by.b.offset(self.place, by.places[found.source]), at)
            vector = by.b.load(place, vec(by.width, i32) if by.width > 1 else i32)
            self._loaded[key] = by.b.lanes_of(vector) if by.width > 1 else [vector]
        return self._loaded[key]
