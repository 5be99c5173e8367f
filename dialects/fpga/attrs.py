"""How a product is cut, and what a processing element does with a weight."""

from abc import abstractmethod

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import IntAttr
from xdsl.irdl import irdl_attr_definition
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.fpga.named import Ints, NamedAttr
from nybble.dialects.fpga.types import bits_for

Integers = npt.NDArray[np.int64]
ENTRIES = 32
"""Entries of a lookup table: those of the LUTRAM primitives RAM32M16 and RAM64M8, half of which is
filled while the other is read."""
LARGEST_ACTIVATION = 127
LARGEST_VALUE = 128
SPACING = 18
"""Bits between two products that share a DSP block (AMD WP486, for 27 x 18 bits)."""


@irdl_attr_definition
class TilingAttr(NamedAttr):
    """How `rows` x `cols` weights times `tokens` rows of activations are cut.

    Scales are shared by `group` columns. An array of elements takes, in a cycle, `lanes` elements
    of `width` columns for `high` rows and `wide` tokens. A group is padded to whole tiles of
    lanes * width columns. All rows pass by one tile of columns before the next tile comes, so that
    what is made of the activations stays where it is.
    """

    name = "fpga.tiling"
    FIELDS = ("tokens", "rows", "cols", "group", "lanes", "width", "high", "wide")
    tokens: IntAttr
    rows: IntAttr
    cols: IntAttr
    group: IntAttr
    lanes: IntAttr
    width: IntAttr
    high: IntAttr
    wide: IntAttr

    @property
    def tile(self) -> int:
        """Columns of a tile."""
        return self.lanes.data * self.width.data

    @property
    def tiles_per_group(self) -> int:
        """Tiles of a group."""
        return -(-self.group.data // self.tile)

    @property
    def groups(self) -> int:
        """Groups of a row."""
        return self.cols.data // self.group.data

    @property
    def tiles(self) -> int:
        """Tiles of a row."""
        return self.groups * self.tiles_per_group

    @property
    def row_blocks(self) -> int:
        """Cycles that all rows take to pass by a tile."""
        return -(-self.rows.data // self.high.data)

    @property
    def passes(self) -> int:
        """How often all weights are read."""
        return -(-self.tokens.data // self.wide.data)

    @property
    def sums(self) -> int:
        """Results of a cycle."""
        return self.high.data * self.wide.data

    def joined(self, count: int) -> "TilingAttr":
        """The same with `count` groups as one."""
        plain = {name: getattr(self, name).data for name in self.FIELDS}
        return TilingAttr.get(**plain | {"group": count * self.group.data})

    def columns(self) -> Integers:
        """[groups, tiles_per_group * tile]: the column at each place, -1 for padding."""
        places = np.arange(self.tiles_per_group * self.tile)
        starts = np.arange(self.groups)[:, None] * self.group.data
        return np.where(places < self.group.data, starts + places, -1)

    def verify(self) -> None:
        for name in self.FIELDS:
            if getattr(self, name).data < 1:
                raise VerifyException(f"{name} of a tiling must be at least 1")
        if self.cols.data % self.group.data:
            raise VerifyException(
                f"a group of {self.group.data} columns does not divide {self.cols.data}"
            )


class ElementAttr(NamedAttr):
    """A processing element: what it makes of the codes of its columns, once for all arrays.

    Codes are unsigned numbers as a format stores them, -1 at padding.
    """

    @property
    @abstractmethod
    def width(self) -> int:
        """Columns of an element."""

    @property
    @abstractmethod
    def field_bits(self) -> int:
        """Bits of a field of a weight's word."""

    @property
    @abstractmethod
    def fields(self) -> int:
        """Fields that a row has for an element."""

    @property
    @abstractmethod
    def largest(self) -> int:
        """The largest magnitude of a weight, in integers."""

    @property
    def terms(self) -> int:
        """Cycles that a word of weights takes."""
        return 1

    @property
    def activation_planes(self) -> int:
        """Bits of the bipolar integers that activations are rounded to; 0 for 8 bits and a sign."""
        return 0

    def start(self, columns: int) -> int:
        """What a sum over a group of so many columns starts with."""
        return 0

    @property
    def index_bits(self) -> int:
        """Bits of an index."""
        return 0

    def index_lanes(self, tiling: TilingAttr) -> int:
        """Indices beside a word of weights, which say more of its fields; 0 for none."""
        return 0

    @abstractmethod
    def encode(self, codes: Integers) -> Integers:
        """Codes [.., width] to fields [.., fields], offline."""

    @abstractmethod
    def dots(self, held: Integers, fields: Integers) -> Integers:
        """Sums of products [tiles, rows, wide] of what an array holds, [tiles, places, .., wide],
        with fields [tiles, rows, fields, lanes].
        """

    def dot_bits(self, columns: int) -> int:
        """Bits of the sum of products of that many columns."""
        most = columns * LARGEST_ACTIVATION * self.largest
        return bits_for(-most, most)


@irdl_attr_definition
class LookupAttr(ElementAttr):
    """One look-up for each bit plane: a field is the number of a sum of the element's columns.

    digits: what a column's digit takes of its activation, 0 and 1 for bits, -1, 0, 1 for trits. A
    weight is `step * sum_p 2^p * digits[d_p] + first`. LUT Tensor Core, arXiv 2408.06003, has
    tables that pass by; here they stay, in LUTRAM, and weights are encoded offline.
    """

    name = "fpga.lookup"
    FIELDS = ("digits", "planes", "step", "first")
    digits: Ints
    planes: IntAttr
    step: IntAttr
    first: IntAttr

    @property
    def radix(self) -> int:
        """Kinds of digits."""
        return len(self.digits.data)

    @property
    def width(self) -> int:
        """As many columns as ENTRIES sums can tell apart."""
        return max(count for count in range(1, 6) if self.radix**count <= ENTRIES)

    @property
    def field_bits(self) -> int:
        """See `ElementAttr`: the number of an entry."""
        return (ENTRIES - 1).bit_length()

    @property
    def fields(self) -> int:
        """See `ElementAttr`: one for each plane."""
        return self.planes.data

    @property
    def largest(self) -> int:
        """See `ElementAttr`."""
        ends = [min(self.numbers("digits")), max(self.numbers("digits"))]
        weights = [self.step.data * (2**self.planes.data - 1) * end for end in ends]
        return max(abs(weight + self.first.data) for weight in weights)

    @property
    def entry_bits(self) -> int:
        """Bits of an entry of a table."""
        most = self.width * LARGEST_ACTIVATION * max(abs(d) for d in self.numbers("digits"))
        return bits_for(-most, most)

    def taken(self) -> Integers:
        """[ENTRIES, width]: what each entry takes of each column; nothing beyond the last sum."""
        entries = np.arange(ENTRIES)[:, None] // self.radix ** np.arange(self.width) % self.radix
        taken = np.asarray(self.numbers("digits"))[entries]
        taken[self.radix**self.width :] = 0
        return taken

    def dots(self, held: Integers, fields: Integers) -> Integers:
        """See `ElementAttr`: held are tables [tiles, lanes, ENTRIES, wide]; without `first`."""
        tiles, lanes = np.arange(len(held))[:, None, None], np.arange(held.shape[1])
        found = [held[tiles, lanes, fields[:, :, plane]] for plane in range(self.planes.data)]
        sums = [self.step.data * 2**plane * one.sum(axis=2) for plane, one in enumerate(found)]
        return np.sum(sums, axis=0)

    def encode(self, codes: Integers) -> Integers:
        """See `ElementAttr`."""
        known = np.maximum(codes, 0)
        if self.radix > 2:
            digits = known[..., None, :]
        else:
            digits = known[..., None, :] >> np.arange(self.planes.data)[:, None] & 1
        return (digits * self.radix ** np.arange(self.width)).sum(axis=-1)

    def verify(self) -> None:
        if not 2 <= self.radix <= ENTRIES:
            raise VerifyException(f"a digit has 2 to {ENTRIES} kinds, got {self.radix}")
        if self.planes.data < 1 or (self.radix > 2 and self.planes.data != 1):
            raise VerifyException(
                f"{self.planes.data} planes of digits of {self.radix} kinds; accepted: planes of "
                "bits, or one plane of other digits"
            )


class ValuesAttr(ElementAttr):
    """An element whose fields are codes, values[code] their integers."""

    values: Ints

    @property
    def field_bits(self) -> int:
        """See `ElementAttr`."""
        return max((len(self.values.data) - 1).bit_length(), 1)

    @property
    def largest(self) -> int:
        """See `ElementAttr`."""
        return max(abs(one) for one in self.numbers("values"))

    @property
    def value_bits(self) -> int:
        """Bits of a weight's integer."""
        return bits_for(min(self.numbers("values")), max(self.numbers("values")))

    def verify(self) -> None:
        if not 2 <= len(self.values.data) <= 256:
            raise VerifyException(f"codes have 2 to 256 values, got {len(self.values.data)}")
        if self.largest > LARGEST_VALUE:
            raise VerifyException(f"values are up to {LARGEST_VALUE}, got {self.largest}")


@irdl_attr_definition
class MultiplyAttr(ValuesAttr):
    """One narrow product: a field is a code, values[code] its integer, without a DSP block."""

    name = "fpga.multiply"
    FIELDS = ("values",)
    values: Ints

    @property
    def width(self) -> int:
        """See `ElementAttr`."""
        return 1

    @property
    def fields(self) -> int:
        """See `ElementAttr`."""
        return 1

    def encode(self, codes: Integers) -> Integers:
        """See `ElementAttr`."""
        return np.maximum(codes, 0)

    def dots(self, held: Integers, fields: Integers) -> Integers:
        """See `ElementAttr`: held are columns [tiles, lanes, wide]."""
        weights = np.asarray(self.numbers("values"))[fields[:, :, 0]]
        return np.einsum("trl,tlw->trw", weights, held)


@irdl_attr_definition
class SparseAttr(ValuesAttr):
    """`keep` products of the `of` columns of a block: fields are codes, indices say which columns.

    block: how many rows, one below the other, keep the same columns (FlightLLM, arXiv 2401.03868,
    has 16).
    """

    name = "fpga.sparse"
    FIELDS = ("values", "keep", "of", "block")
    keep: IntAttr
    of: IntAttr
    block: IntAttr

    @property
    def width(self) -> int:
        """See `ElementAttr`."""
        return self.of.data

    @property
    def fields(self) -> int:
        """See `ElementAttr`."""
        return self.keep.data

    @property
    def index_bits(self) -> int:
        """See `ElementAttr`: the number of a column in its block."""
        return (self.of.data - 1).bit_length()

    def index_lanes(self, tiling: TilingAttr) -> int:
        """See `ElementAttr`: none of a block that is kept whole."""
        if self.keep.data == self.of.data:
            return 0
        rows = 1 if self.is_shared else tiling.high.data
        return rows * self.keep.data * tiling.lanes.data

    @property
    def is_shared(self) -> bool:
        """Whether rows share columns."""
        return self.block.data > 1

    def pair(self, tiling: TilingAttr) -> str:
        """What shares a DSP block: two rows that multiply one activation, two tokens one weight."""
        shared = self.is_shared or self.keep.data == self.of.data
        if shared and tiling.high.data % 2 == 0:
            return "row"
        return "token" if tiling.wide.data % 2 == 0 else ""

    def chain(self) -> int:
        """Products that a DSP block's lower half can add up, up to `keep`."""
        most = (2 ** (SPACING - 1) - 1) // (LARGEST_ACTIVATION * max(self.largest, 1))
        return min(most, self.keep.data)

    def kept(self, codes: Integers) -> Integers:
        """Which columns of a block are kept: codes [.., of] to [.., keep], padding last."""
        return np.argsort(codes < 0, axis=-1, kind="stable")[..., : self.keep.data]

    def encode(self, codes: Integers) -> Integers:
        """See `ElementAttr`: a code that is not kept is -1."""
        return np.maximum(np.take_along_axis(codes, self.kept(codes), axis=-1), 0)

    def dots(self, held: Integers, fields: Integers) -> Integers:
        """See `ElementAttr`: held are columns [tiles, rows, lanes * keep, wide], chosen already."""
        weights = np.asarray(self.numbers("values"))[fields]
        flat = weights.transpose(0, 1, 3, 2).reshape(*weights.shape[:2], -1)
        return np.einsum("trl,trlw->trw", flat, held)

    def verify(self) -> None:
        super().verify()
        if not 1 <= self.keep.data <= self.of.data <= 64 or self.of.data < 2:
            raise VerifyException(
                f"{self.keep.data} of {self.of.data} columns; accepted: some of 2 to 64"
            )
        if self.block.data < 1:
            raise VerifyException(f"a block has at least 1 row, got {self.block.data}")
