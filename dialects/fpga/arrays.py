"""The processes of a matrix product that make its sums: tables, and the array of elements."""

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import I64, IntegerAttr, i64
from xdsl.ir import SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_result_def,
    prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.fpga.attrs import (
    ENTRIES,
    LARGEST_ACTIVATION,
    ElementAttr,
    LookupAttr,
    SparseAttr,
    TilingAttr,
)
from nybble.dialects.fpga.processes import TiledOp, column_stream
from nybble.dialects.fpga.serial import SerialAttr
from nybble.dialects.fpga.types import StreamType, bits_for, signed, unsigned
from nybble.dialects.fpga.words import Integers


def table_stream(tiling: TilingAttr, element: LookupAttr, ways: int) -> StreamType:
    """Entries of tables: those of `ways` lanes and all tokens in a word, entry by entry."""
    words = tiling.passes * tiling.tiles * tiling.lanes.data // ways * ENTRIES
    return StreamType.get(words, ways * tiling.wide.data, signed(element.entry_bits))


def sum_stream(tiling: TilingAttr) -> StreamType:
    """Sums of a tile's activations."""
    most = tiling.tile * LARGEST_ACTIVATION
    words = tiling.passes * tiling.tiles
    return StreamType.get(words, tiling.wide.data, signed(bits_for(-most, most)))


def weight_stream(tiling: TilingAttr, element: ElementAttr) -> StreamType:
    """Fields of weights: of `high` rows in a word, row by row, then field by field, by lane."""
    lanes = tiling.high.data * element.fields * tiling.lanes.data
    words = tiling.passes * tiling.tiles * tiling.row_blocks
    return StreamType.get(words, lanes, unsigned(element.field_bits), 32)


def index_stream(tiling: TilingAttr, element: ElementAttr) -> StreamType | None:
    """What else is said of each word of weights; None for an element that needs nothing."""
    words = tiling.passes * tiling.tiles * tiling.row_blocks
    lanes = element.index_lanes(tiling)
    return StreamType.get(words, lanes, unsigned(element.index_bits), 32) if lanes else None


def dot_stream(tiling: TilingAttr, element: ElementAttr) -> StreamType:
    """Sums of a group's products: of `high` rows in a word, row by row, then token by token."""
    words = tiling.passes * tiling.groups * tiling.row_blocks
    return StreamType.get(words, tiling.sums, signed(element.dot_bits(tiling.group.data)))


@irdl_op_definition
class BuildTablesOp(TiledOp):
    """The sums of each lane's columns, an entry of `ways` tables in a cycle.

    sums: those of tiles, where the element's `first` is not 0.
    """

    name = "fpga.build_tables"
    columns = operand_def(StreamType)
    tables = result_def(StreamType)
    sums = opt_result_def(StreamType)
    element = prop_def(LookupAttr)
    ways = prop_def(IntegerAttr[I64])
    assembly_format = (
        "$columns `ways` $ways `tiling` $tiling `element` $element attr-dict `:` type($columns) "
        "`->` type($tables) (`sums` type($sums)^)?"
    )

    def __init__(self, columns: SSAValue, tiling: TilingAttr, element: LookupAttr, ways: int):
        sums = sum_stream(tiling) if element.first.data else None
        super().__init__(
            operands=[columns],
            result_types=[table_stream(tiling, element, ways), sums],
            properties={"tiling": tiling, "element": element, "ways": IntegerAttr(ways, i64)},
        )

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (column_stream(self.tiling),)

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        tables = table_stream(self.tiling, self.element, self.ways.value.data)
        return (tables, sum_stream(self.tiling)) if self.element.first.data else (tables,)

    def cycles(self) -> int:
        """See `ProcessOp`: the columns of a block of lanes are read while the last is built."""
        return self.made()[0].words.data + ENTRIES

    def leads(self) -> Sequence[int]:
        """See `ProcessOp`."""
        return (self.ways.value.data * self.element.width,)

    def tail(self) -> int:
        """See `ProcessOp`."""
        return ENTRIES

    def verify_(self) -> None:
        ways, lanes = self.ways.value.data, self.tiling.lanes.data
        if ways < 1 or lanes % ways or ways * self.element.width > ENTRIES:
            most = ENTRIES // self.element.width
            raise VerifyException(
                f"{ways} tables at once; accepted: a divisor of {lanes} lanes up to {most}"
            )
        super().verify_()

    def reference(self, columns: Integers) -> tuple[Integers, ...]:
        """columns: [words, wide]."""
        tiling, ways = self.tiling, self.ways.value.data
        wide, width = tiling.wide.data, self.element.width
        blocks = columns.reshape(-1, ways, width, wide)
        entries = np.einsum("bwct,ec->bewt", blocks, self.element.taken())
        sums = columns.reshape(-1, tiling.tile, wide).sum(axis=1)
        made = entries.reshape(-1, ways * wide), sums
        return made[: len(self.results)]


@irdl_op_definition
class ArrayOp(TiledOp):
    """Elements that hold what was made of a tile of activations, while all rows pass by.

    stationary: entries of tables for an element that looks up, else columns. sums: of the tiles,
    for look-ups whose `first` is not 0. indices: of the columns that a sparse product keeps, or of
    the tables that groups choose. What the next tile needs is taken in at the same time.
    """

    name = "fpga.array"
    stationary = operand_def(StreamType)
    weights = operand_def(StreamType)
    sums = opt_operand_def(StreamType)
    indices = opt_operand_def(StreamType)
    dots = result_def(StreamType)
    element = prop_def(ElementAttr)
    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    assembly_format = (
        "$stationary `,` $weights (`sums` $sums^ `:` type($sums))? "
        "(`indices` $indices^ `:` type($indices))? `tiling` $tiling `element` "
        "$element attr-dict `:` type($stationary) `,` type($weights) `->` type($dots)"
    )

    def __init__(
        self,
        stationary: SSAValue,
        weights: SSAValue,
        sums: SSAValue | None,
        indices: SSAValue | None,
        tiling: TilingAttr,
        element: ElementAttr,
        depth: int = 2,
    ):
        super().__init__(
            operands=[stationary, weights, sums, indices],
            result_types=[dot_stream(tiling, element).with_depth(depth)],
            properties={"tiling": tiling, "element": element},
        )

    @property
    def ways(self) -> int:
        """Tables of which a word of the stationary stream has an entry."""
        assert isinstance(self.stationary.type, StreamType)
        return max(self.stationary.type.lanes.data // self.tiling.wide.data, 1)

    @property
    def load(self) -> int:
        """Words of the stationary stream that a tile takes."""
        tiling = self.tiling
        return self.taken()[0].words.data // (tiling.passes * tiling.tiles)

    @property
    def steps(self) -> int:
        """Cycles of a tile: as many as rows pass by, or as the next tile needs to be loaded."""
        return max(self.load, self.passing)

    @property
    def passing(self) -> int:
        """Cycles in which all rows pass by."""
        return self.tiling.row_blocks * self.element.terms

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        tiling, element = self.tiling, self.element
        weights = weight_stream(tiling, element)
        if not isinstance(element, LookupAttr):
            indices = index_stream(tiling, element)
            more = () if indices is None else (indices,)
            return (column_stream(tiling, element.activation_planes), weights, *more)
        tables = table_stream(tiling, element, self.ways)
        return (tables, weights, sum_stream(tiling)) if element.first.data else (tables, weights)

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (dot_stream(self.tiling, self.element),)

    def cycles(self) -> int:
        """See `ProcessOp`: one tile more, since the first is loaded before rows can pass."""
        return (self.tiling.passes * self.tiling.tiles + 1) * self.steps

    def leads(self) -> Sequence[int]:
        """See `ProcessOp`: the tiles of a group, whose last one's rows are written as they come."""
        parts = self.tiling.tiles_per_group
        made = self.tiling.passes * self.tiling.tiles
        first, *others = (one.words.data // made for one in self.taken())
        rows = (parts - 1) * self.tiling.row_blocks + 1
        return [parts * first, *(parts if words == 1 else rows for words in others)]

    def tail(self) -> int:
        """See `ProcessOp`."""
        return self.passing

    def idle(self) -> int:
        """See `ProcessOp`: rows have passed, and the next tile is still being loaded."""
        return self.steps - self.passing

    def verify_(self) -> None:
        super().verify_()
        if self.element.width != self.tiling.width.data:
            raise VerifyException(
                f"elements of {self.element.width} columns in a tiling of {self.tiling.width.data}"
            )

    def reference(
        self, stationary: Integers, weights: Integers, more: Integers | None = None
    ) -> tuple[Integers]:
        """[words, lanes] each. more: sums or indices."""
        tiling, element = self.tiling, self.element
        tiles, blocks = tiling.passes * tiling.tiles, tiling.row_blocks
        high, wide, lanes = tiling.high.data, tiling.wide.data, tiling.lanes.data
        fields = weights.reshape(tiles, blocks * high, element.fields, lanes)
        held = stationary.reshape(tiles, -1, wide)
        if isinstance(element, LookupAttr):
            shape = (tiles, lanes // self.ways, ENTRIES, self.ways, wide)
            tables = stationary.reshape(shape).transpose(0, 1, 3, 2, 4)
            held = tables.reshape(tiles, lanes, ENTRIES, wide)
        elif isinstance(element, SparseAttr) and more is not None:
            held = chosen(held, more, tiling, element)
        elif isinstance(element, SparseAttr):
            held = held[:, None]
        elif isinstance(element, SerialAttr) and more is not None:
            fields = fields + element.codes * more.reshape(tiles, -1, 1, 1)
        dots = element.dots(held, fields)
        if isinstance(element, LookupAttr) and more is not None:
            dots += element.first.data * more[:, None, :]
        whole = dots.reshape(tiling.passes, tiling.groups, -1, blocks * high, wide).sum(axis=2)
        whole += element.start(tiling.group.data)
        return (whole.reshape(-1, high * wide),)


def chosen(
    columns: Integers, indices: Integers, tiling: TilingAttr, element: SparseAttr
) -> Integers:
    """Of columns [tiles, places, wide] what each row keeps: [tiles, rows, lanes * keep, wide].

    indices: [words, lanes] of `index_stream`.
    """
    tiles, lanes = len(columns), tiling.lanes.data
    rows = 1 if element.is_shared else tiling.high.data
    found = indices.reshape(tiles, tiling.row_blocks, rows, element.keep.data, lanes)
    places = np.repeat(found, tiling.high.data // rows, axis=2).swapaxes(3, 4)
    places = places + element.of.data * np.arange(lanes)[:, None]
    flat = places.reshape(tiles, -1, lanes * element.keep.data)
    return columns[np.arange(tiles)[:, None, None], flat]
