"""Weights as a stream of records, in the order in which warps read them.

A warp multiplies a tile of `16 * fragments` rows; it walks along the columns in steps. All that it
needs for a step is one record: the codes, 16 bytes for a lane at a time, then scales, then zeros,
then a table that the codes index. Records of a tile follow each other, then those of the next tile.
So a warp reads one stretch of memory from its beginning to its end, whatever the format is.

    [tile][step]{ [unit of 64 columns][load][lane][16 bytes], scales, zeros, table }

Behind all records are outliers: where those of each row start, u32 [rows of all tiles + 1], then by
row their columns, i32, and what is added to the weights there, f32, side by side.

The columns of a unit are permuted so that a lane's activations are 16 bytes in a row, too: column
k of fragment tile j of lane (g, t), where the instruction has columns 2t, 2t+1, 2t+8, 2t+9, is
`first_column(j, t)` + 0, 1, 2, 3. Scales are those of rows g and g + 8 of each fragment, by group,
[group][fragment][2], read 16 bytes at a time: [load][g][16 bytes], or less if a lane has less.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from nybble.backends.gpu.packing.placement import Placement

UNIT = 64
TILES = 4
"""Tiles of 16 columns in a unit."""
LANES = 32
WORD = 4
LOAD = 16
ZeroKind = Literal["", "points", "minimum"]
"""What a group has beside its scale: none, z of `scale * (code - z)`, m of `scale * code + m`."""
SCALE_BYTES = {"f16": 2, "bf16": 2, "f32": 4, "": 0}
OUTLIER = 8
"""Bytes of an outlier."""


@dataclass(frozen=True)
class StreamLayout:
    """The layout of a [rows, cols] weight.

    group: columns that share a scale. step: columns of a record, a multiple or a divisor of it.
    scale: type of scales and zeros, empty where there are none. zero: see ZeroKind. has_table:
    whether records have the table of 16 bytes of their tile. outliers: for how many there is room.
    """

    rows: int
    cols: int
    placement: Placement
    group: int
    step: int
    scale: str = "f16"
    zero: ZeroKind = ""
    has_table: bool = False
    outliers: int = 0

    def __post_init__(self) -> None:
        assert self.step % self.unit == 0
        assert self.unit != UNIT or self.placement.is_full
        assert self.step % self.group == 0 or self.group % self.step == 0 or self.group == self.cols
        assert self.group % self.run_columns == 0 or self.group == self.cols

    @property
    def unit(self) -> int:
        """Columns whose codes lie together."""
        return UNIT

    @property
    def numbers(self) -> int:
        """How many numbers a row has for a group: its scale, and what else there is."""
        return 2 if self.zero else 1

    @property
    def tile_rows(self) -> int:
        """Rows of a tile."""
        return 16 * self.placement.fragments

    @property
    def tiles(self) -> int:
        """Tiles; the last may have rows that are not."""
        return -(-self.rows // self.tile_rows)

    @property
    def steps(self) -> int:
        """Steps along the columns; the last may have columns that are not."""
        return -(-self.cols // self.step)

    @property
    def units(self) -> int:
        """Units in a step."""
        return self.step // self.unit

    @property
    def loads(self) -> int:
        """Loads of 16 bytes by every lane for a unit."""
        return self.placement.words * self.unit // UNIT

    @property
    def groups(self) -> int:
        """Groups that have a scale in a record."""
        return max(1, self.step // self.group)

    @property
    def run_columns(self) -> int:
        """Columns that a number of whole tiles cover without a gap: no group may be smaller."""
        return 32 if self.group % 32 == 0 or self.group >= self.step else 16

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes of a record."""
        return self.units * self.loads * LANES * LOAD

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scales of a record, as many as those of its zeros."""
        return 8 * self.lane_scale_bytes

    @property
    def lane_scale_bytes(self) -> int:
        """Bytes of the scales that one lane needs for a record."""
        return self.groups * self.placement.fragments * 2 * SCALE_BYTES[self.scale]

    @property
    def scale_load(self) -> int:
        """Bytes of them that are loaded at once."""
        return min(LOAD, self.lane_scale_bytes & -self.lane_scale_bytes)

    @property
    def table_start(self) -> int:
        """Where the table of a record begins."""
        return -(-(self.code_bytes + self.numbers * self.scale_bytes) // LOAD) * LOAD

    @cached_property
    def record_bytes(self) -> int:
        """Bytes of a record, a multiple of 16."""
        return self.table_start + LOAD * self.has_table

    @property
    def starts(self) -> int:
        """Where the outliers' starts begin: the bytes of all records."""
        return self.tiles * self.steps * self.record_bytes

    @property
    def added(self) -> int:
        """Where outliers begin."""
        count = self.tiles * self.tile_rows + 1 if self.outliers else 0
        return self.starts + -(-count * WORD // LOAD) * LOAD

    @property
    def bytes(self) -> int:
        """Bytes of all records, and of outliers."""
        return self.added + self.outliers * OUTLIER

    def first_column(self, tile: int, quad: int) -> int:
        """The first of the four columns, in a unit, that lane `quad` of four has in a tile."""
        if self.run_columns == 16:
            return 16 * tile + 4 * quad
        return 32 * (tile // 2) + 8 * quad + 4 * (tile % 2)

    def holder(self, tile: int, upper: int, late: int) -> tuple[int, int]:
        """The tile, and lane of four, that hold two columns of 16 in their natural order.

        They are columns `16 * tile + 8 * upper + 2 * t`, and the next, of a unit, where t is 0 or
        1, or 2 or 3 if `late`; they are the last two of the holder's four if t is odd.
        """
        if self.run_columns == 16:
            return tile, 2 * upper + late
        return tile - tile % 2 + late, 2 * (tile % 2) + upper


@dataclass(frozen=True)
class PlaneLayout(StreamLayout):
    """Bits of codes by plane, for `mma` on bits: a unit is the columns of one.

    block: 128 or 256 columns. A lane has 32 or 64 columns of a unit, those of a plane in one word
    or two, for rows g and g + 8 of each fragment: [fragment][plane][word][2]. Beside scales a group
    has the sum of its codes, then zeros.
    """

    block: int = 256

    @property
    def unit(self) -> int:
        """See StreamLayout."""
        return self.block

    @property
    def numbers(self) -> int:
        """See StreamLayout."""
        return 3 if self.zero else 2

    @property
    def lane_words(self) -> int:
        """Words of a plane that a lane has of a row of a unit."""
        return self.block // 128

    @property
    def loads(self) -> int:
        """See StreamLayout."""
        return self.placement.bits * self.placement.fragments * self.block // (LOAD * LOAD)
