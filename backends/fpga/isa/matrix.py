"""How a weight lies in memory: a slice of its rows for each region, cut into tiles."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from nybble.backends.fpga.isa.instructions import BLOCK, LINE
from nybble.backends.fpga.isa.machine import Machine
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit.formats import Format
from nybble.dialects.lowbit.formats.affine import Affine, affine
from nybble.dialects.lowbit.formats.scale import FloatScale
from nybble.dialects.lowbit.formats.structure import NOfM

SCALE_BYTES = 2
ACCEPTED = (
    "integers of 2 to 8 bits without a stored zero, with f16 scales by rows or by a multiple of 16 "
    "columns, dense or N:16 in blocks of 16 rows: w4, w4g128, w8, w4n8:16"
)


class FormatRefused(NybbleError):
    """A number format that the accelerator does not multiply."""


def up(value: int, step: int) -> int:
    """The next multiple of a step."""
    return -(-value // step) * step


@dataclass(frozen=True)
class Tile:
    """Rows [row, row + rows) of a region's slice, by columns; address and bytes in memory.

    The bytes are codes [rows, kept columns], then the places of what is kept (4 bits each, once for
    16 rows), then scales f16 [rows, groups]; each part from a line on.
    """

    row: int
    rows: int
    column: int
    columns: int
    address: int
    codes: int
    places: int
    scales: int

    @property
    def bytes(self) -> int:
        """Of all three parts."""
        return self.codes + self.places + self.scales


@dataclass(frozen=True)
class Matrix:
    """A weight of `rows` x `columns`; columns: of the activations as they lie there, padded.

    name: of the argument. keep: columns of 16. group: columns that share a scale, 0 for all.
    slice: rows of each region, the last of them padded with zeros.
    """

    name: str
    rows: int
    columns: int
    bits: int
    keep: int
    group: int
    slice: int
    form: Format
    tile_rows: int
    most_bytes: int

    @property
    def groups(self) -> int:
        """Scales of a row."""
        return -(-self.columns // self.group) if self.group else 1

    def parts(self, rows: int, columns: int) -> tuple[int, int, int]:
        """Bytes of codes, places and scales of so many rows and columns."""
        kept = columns // BLOCK * self.keep
        places = rows // BLOCK * kept * 4 // 8 if self.keep < BLOCK else 0
        groups = -(-columns // self.group) if self.group else 1
        codes = rows * kept * self.bits // 8
        return up(codes, LINE), up(places, LINE), up(rows * groups * SCALE_BYTES, LINE)

    def with_tall_tiles(self) -> "Matrix":
        """The same with as many rows in a tile as fit, in multiples of an instruction's."""
        times = 1
        while (times + 1) * self.tile_rows < self.slice + self.tile_rows and (
            sum(self.parts((times + 1) * self.tile_rows, self.columns)) <= self.most_bytes
        ):
            times += 1
        return replace(self, tile_rows=times * self.tile_rows)

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """The tiles of a region's slice, row by row, at addresses from 0 on."""
        return tuple(self._tiles())

    def _tiles(self) -> Iterator[Tile]:
        address = 0
        step = self._columns_of_tile()
        for row in range(0, self.slice, self.tile_rows):
            rows = min(self.tile_rows, self.slice - row)
            for column in range(0, self.columns, step):
                columns = min(step, self.columns - column)
                found = Tile(row, rows, column, columns, address, *self.parts(rows, columns))
                yield found
                address += found.bytes

    def _columns_of_tile(self) -> int:
        """Columns of a tile: all of them, or equal pieces that fit."""
        rows, grain = min(self.tile_rows, self.slice), self.group or BLOCK
        pieces = 1
        while True:
            step = up(-(-self.columns // pieces), grain)
            if sum(self.parts(rows, step)) <= self.most_bytes:
                return step
            if step == grain:
                raise NybbleError(
                    f"a tile of {self.name} takes {sum(self.parts(rows, step))} bytes",
                    accepted=f"up to {self.most_bytes}, half of the weight buffer",
                )
            pieces += 1

    @property
    def bytes(self) -> int:
        """Of a region's slice."""
        last = self.tiles[-1]
        return last.address + last.bytes


def matrix_of(name: str, form: Format, rows: int, columns: int, machine: Machine) -> Matrix:
    """A weight on a machine; FormatRefused. columns: of the activations as they lie, padded."""
    keep, group = _keep_and_group(form, name)
    return Matrix(
        name,
        rows,
        columns,
        form.element.bits,
        keep,
        group,
        up(-(-rows // machine.regions), BLOCK),
        form,
        machine.vector_start,
        machine.weights // 2,
    ).with_tall_tiles()


def _keep_and_group(form: Format, name: str) -> tuple[int, int]:
    size = form.grouping.size or 0
    pattern = form.sparsity
    fits = pattern is None or (
        isinstance(pattern, NOfM) and pattern.of == BLOCK and pattern.block == BLOCK
    )
    scaled = isinstance(form.scale, FloatScale) and form.scale.dtype == "f16"
    shape = form.grouping.axis == "cols" and form.grouping.count == 1 and size % BLOCK == 0
    plain = form.zero is None and not form.corrections
    if not (fits and scaled and shape and plain and _is_signed(form)):
        raise FormatRefused(f"{name}: no accelerator multiplies '{form.spec}'", accepted=ACCEPTED)
    return (pattern.keep if isinstance(pattern, NOfM) else BLOCK), size


def _is_signed(form: Format) -> bool:
    """Whether the codes are those of signed integers of 2 to 8 bits."""
    bits = form.element.bits
    return 2 <= bits <= 8 and affine(form.element) == Affine(1, -(1 << (bits - 1)))
