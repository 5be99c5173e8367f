"""Compute layouts of weights: what the CPU matmul kernels stream, as a permutation of codes.

`TileLayout` holds integer codes with scales. For every tile of 64 rows and every scale group, in
one sequential stream: the group's codes, then 64 scales, then (if the format has them) 64 zeros and
64 bytes that choose a special value. Where scales are small integers under floats that some groups
share (`Tree`), a group has a byte for each of them, and the floats follow their last group. An
integer zero z is a byte too, `Z = -S * z`. Where the 16 rows of a sub-tile share floats instead
(`by_subtile`, SpQR's tiles), a group has a byte `c + 16 d` for each row, and then for each sub-tile
the floats of `S = base * c + low`, and those of z = `base * d + low` in `Z = -S * z`.

A code of 3, 5 or 6 bits is cut into two pieces of 4, 2 and 1 bits, the low one first (`widths`;
others are one piece, that of 7 bits of 8), and a group into steps of the fewest columns that fill a
vector of every piece. A step holds, piece by piece, vectors of 64 bytes, one for each of the tile's
four sub-tiles of 16 rows in turn. Byte `row * 4 + j` of vector v holds, in plane p (bits
`p * width ..`), the piece of the code of column `(v * planes + p) * 4 + j` of the step. So a 32-bit
lane is a row, and after a mask and a shift the vector is what a four-way integer dot product takes,
and a tile of AMX's second operand.

Of weights of which N of every four columns are kept (`keep`), the codes of these are held so, as if
they were all columns; a step is of at least 32 columns, and behind its codes are vectors of their
patterns (`kept_codes`): nibble i of a lane of vector v is that of the four columns `8 v + i`.

`DenseLayout` holds plain floats, 64 rows of a column together: `[tile][column][64]`.

Rows are padded to a multiple of 64 with zeros.
"""

from dataclasses import dataclass
from functools import cached_property

from nybble.backends.cpu.float_bytes import FLOAT_BYTES, FloatName
from nybble.dialects.errors import NybbleError

TILE = 64
LANES = 16
SUBTILES = TILE // LANES
VECTOR = 64
"""Bytes of a vector of codes."""
RUN = 4
"""Columns of which `keep` are kept."""
PIECES = ((1,), (2,), (2, 1), (4,), (4, 1), (4, 2), (8,))


class LayoutError(NybbleError):
    """A weight or a shape that a compute layout cannot hold."""


def pieces(bits: int, group: int) -> tuple[int, ...]:
    """The widths of the pieces that a code of `bits` bits is stored in; empty if there are none.

    Of all widths of at least `bits` whose pieces fill whole vectors with a group's columns, the
    narrowest.
    """
    for parts in PIECES:
        if sum(parts) >= bits and group % (32 // min(parts)) == 0:
            return parts
    return ()


@dataclass(frozen=True)
class Tree:
    """Scales `float * (byte - offset)`, a float for `count` groups; zeros alike with their own."""

    count: int
    offset: int = 0
    zero_offset: int = 0


@dataclass(frozen=True)
class TileLayout:
    """Integer codes in tiles of 64 rows; see the module's text.

    bits: width of a code, 1 .. 8. group: columns per scale. has_zero: whether zeros follow the
    scales. scale: float type of scales and zeros. has_choice: whether a byte per group chooses a
    special value. tree: how scales are put together, if they are no floats. integer_zero: whether
    zeros are bytes that count scales. by_subtile: whether rows share floats.
    keep: how many of every four columns are kept, 1 or 2; 0 for all of them.
    Raises LayoutError where `cols` is not a multiple of the group, or the group not of 4.
    """

    rows: int
    cols: int
    bits: int
    group: int
    has_zero: bool = False
    scale: FloatName = "f16"
    has_choice: bool = False
    tree: Tree | None = None
    integer_zero: bool = False
    by_subtile: bool = False
    keep: int = 0

    def __post_init__(self) -> None:
        assert not self.by_subtile or (self.tree is None and not self.integer_zero)
        if not 1 <= self.bits <= 8:
            raise LayoutError(f"codes of {self.bits} bits do not fit a byte", accepted="1 .. 8")
        if self.group < 4 or not self.widths:
            raise LayoutError(
                f"groups of {self.group} columns do not fill vectors of {self.bits}-bit codes",
                accepted="a multiple of 4",
            )
        if self.group % self.step:
            raise LayoutError(
                f"groups of {self.group} columns of which {self.keep} of {RUN} are kept",
                accepted=f"a multiple of {self.step}",
            )
        run = self.group * self.count
        if self.rows < 1 or self.cols < 1 or self.cols % run:
            raise LayoutError(
                f"a weight of {self.rows} x {self.cols} has no whole groups of {run}",
                accepted=f"columns that are a multiple of {run}",
            )

    @property
    def count(self) -> int:
        """Groups that share floats; 1 without a tree."""
        return 1 if self.tree is None else self.tree.count

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Bits of each piece of a code, the low ones first."""
        return pieces(self.bits, self.group * self.keep // RUN if self.keep else self.group)

    @property
    def width(self) -> int:
        """Bits that a code takes."""
        return sum(self.widths)

    @property
    def step(self) -> int:
        """Columns of a step."""
        stored = 32 // min(self.widths)
        return max(32, stored * RUN // self.keep) if self.keep else stored

    @property
    def kept(self) -> int:
        """Codes of a row in a step."""
        return self.step * self.keep // RUN if self.keep else self.step

    @property
    def step_bytes(self) -> int:
        """Bytes of a step in a tile."""
        return self.piece(len(self.widths)) + (self.step // 8 * TILE if self.keep else 0)

    def piece(self, index: int) -> int:
        """Byte where a piece's vectors start in a step; behind the last one, the patterns."""
        return self.kept * sum(self.widths[:index]) * TILE // 8

    def shift(self, index: int) -> int:
        """The lowest bit of a code that is in a piece."""
        return sum(self.widths[:index])

    @property
    def tiles(self) -> int:
        """Tiles of 64 rows."""
        return -(-self.rows // TILE)

    @property
    def groups(self) -> int:
        """Groups in a row."""
        return self.cols // self.group

    @property
    def steps(self) -> int:
        """Steps in a group."""
        return self.group // self.step

    @property
    def code_bytes(self) -> int:
        """Bytes of a group's codes in a tile; the scales follow."""
        return self.steps * self.step_bytes

    @property
    def float_bytes(self) -> int:
        """Bytes of a float for each row of a tile."""
        return TILE * FLOAT_BYTES[self.scale]

    @property
    def zero(self) -> int:
        """Byte of a block where the zeros start, behind the scales."""
        is_byte = self.tree is not None or self.by_subtile
        return self.code_bytes + (TILE if is_byte else self.float_bytes)

    @property
    def subtile_floats(self) -> int:
        """How many floats the rows of a sub-tile share in a group."""
        return (4 if self.has_zero else 2) if self.by_subtile else 0

    @property
    def choice(self) -> int:
        """Byte of a block where the choices start, behind the zeros."""
        if self.by_subtile:
            return self.zero + SUBTILES * self.subtile_floats * FLOAT_BYTES[self.scale]
        size = TILE if self.tree or self.integer_zero else self.float_bytes
        return self.zero + (size if self.has_zero else 0)

    @property
    def block_bytes(self) -> int:
        """Bytes of a group in a tile."""
        return self.choice + (TILE if self.has_choice else 0)

    @property
    def shared_bytes(self) -> int:
        """Bytes of the floats that `count` groups share: of the scales, then of the zeros."""
        own = self.has_zero and not self.integer_zero
        return self.float_bytes * (2 if own else 1) if self.tree else 0

    @property
    def run_bytes(self) -> int:
        """Bytes of `count` groups in a tile and what they share."""
        return self.count * self.block_bytes + self.shared_bytes

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile."""
        return self.groups // self.count * self.run_bytes

    @property
    def size(self) -> int:
        """Bytes of the weight."""
        return self.tiles * self.tile_bytes


@dataclass(frozen=True)
class DenseLayout:
    """Plain floats in tiles of 64 rows; see the module's text."""

    rows: int
    cols: int
    dtype: FloatName

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise LayoutError(f"a weight of {self.rows} x {self.cols} is empty")

    @property
    def tiles(self) -> int:
        """Tiles of 64 rows."""
        return -(-self.rows // TILE)

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile."""
        return self.cols * TILE * FLOAT_BYTES[self.dtype]

    @property
    def size(self) -> int:
        """Bytes of the weight."""
        return self.tiles * self.tile_bytes
