"""What a product becomes on a device: its element, how it is cut, and whether that fits."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from xdsl.dialects.builtin import IntegerType

from nybble.backends.fpga.elements import element_of
from nybble.costmodel.targets.reader import find_target
from nybble.costmodel.targets.target import Target
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.attrs import ENTRIES, ElementAttr, LookupAttr, SparseAttr, TilingAttr
from nybble.dialects.fpga.scales import WIDEST_SUM, scaled_bits
from nybble.dialects.fpga.serial import SerialAttr
from nybble.dialects.fpga.types import bits_for, signed, unsigned
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.scale import SuperScale
from nybble.passes.targets import Product

FEWEST_LANES, MOST_LANES = 4, 32
"""Lanes of an array: what they add up in one tree of adders."""
PARTS = (1, 2, 3, 4, 6)
"""How many times as many tiles as there must be are tried."""
PORT_BITS = 512
"""Bits of a word of a memory channel, which a DDR controller or two HBM channels give in a cycle of
a clock around 225 MHz."""
MOST_RESULTS = 32
"""Results of a cycle, or scales and zeros: the floats of a word of the widest AXI bus."""
MOST_TOKENS = 4
"""Tokens that an array takes in a cycle."""
MOST_COLS = 1 << 16
MOST_TOKEN_ROWS = 4096


class DesignError(NybbleError):
    """A product that no design computes."""


@dataclass(frozen=True)
class Design:
    """A product on a device. channels: memories that a word of weights is read from.

    ways: lanes whose tables are built at once. code: of integers that scale groups before a float
    scales several of them, if they do. has_bias: whether something is added to each row.
    """

    spec: str
    element: ElementAttr
    tiling: TilingAttr
    channels: int
    ways: int
    device: str
    code: IntegerType | None = None
    has_bias: bool = False

    @property
    def description(self) -> formats.Format:
        """The format of the weight."""
        return formats.get(self.spec)

    @property
    def has_zeros(self) -> bool:
        """Whether groups have zeros."""
        return self.description.zero is not None

    @property
    def joined(self) -> int:
        """Groups that share a float."""
        return 1 if self.code is None else self.description.grouping.count

    @cached_property
    def target(self) -> Target:
        """The device's description."""
        return find_target(self.device)


def designs(
    dataflow: str, product: Product, device: str, channels: int = 1, has_bias: bool = False
) -> Iterator[Design]:
    """Ways to cut a product for a dataflow; NybbleError with the reason where there is none.

    They differ in the lanes of a row, which fill groups and words of memory more or less well.
    """
    description = product.description
    description.check_shape((product.rows, product.cols))
    element = element_of(dataflow, description, product.activations)
    _check_sizes(product)
    tilings = list(_tilings(element, product, channels))
    if not tilings:
        raise DesignError(
            f"no row of '{description.spec}' fits {channels * PORT_BITS} bits of "
            f"{channels} memory channel(s) with its indices",
            accepted="fewer kept columns of narrower codes",
        )
    for tiling in tilings:
        ways = ways_of(element, tiling)
        code = group_code(element, tiling, description)
        yield Design(description.spec, element, tiling, channels, ways, device, code, has_bias)


def group_code(
    element: ElementAttr, tiling: TilingAttr, description: formats.Format
) -> IntegerType | None:
    """The type of integers that scale groups bit by bit; None where floats do.

    That is done where the array takes as long for the next group, so that nothing waits for it.
    """
    scale = description.scale
    if not isinstance(element, SerialAttr) or not isinstance(scale, SuperScale):
        return None
    if scale.has_low or description.zero is not None:
        return None
    most = 2**scale.width - 1 - scale.offset
    code = signed(bits_for(-scale.offset, most)) if scale.offset else unsigned(scale.width)
    is_hidden = code.bitwidth <= tiling.tiles_per_group * element.terms
    bits = scaled_bits(tiling, element, code, description.grouping.count)
    return code if is_hidden and bits <= WIDEST_SUM else None


def _tilings(element: ElementAttr, product: Product, channels: int) -> Iterator[TilingAttr]:
    group = product.description.group_size(product.cols)
    elements = -(-group // element.width)
    wide = min(product.tokens, MOST_TOKENS)
    most = MOST_RESULTS // (1 if product.description.zero is None else 2)
    for lanes in lanes_of(elements):
        row_bits = lanes * element.fields * element.field_bits
        high = min(channels * PORT_BITS // row_bits, most // wide, product.rows)
        if isinstance(element, SparseAttr):
            high = high_of(element, lanes, high)
        if high:
            yield TilingAttr.get(
                tokens=product.tokens,
                rows=product.rows,
                cols=product.cols,
                group=group,
                lanes=lanes,
                width=element.width,
                high=high,
                wide=wide,
            )


def lanes_of(elements: int) -> list[int]:
    """Numbers of lanes that cut so many elements into tiles, which are all about as full."""
    fewest = -(-elements // MOST_LANES)
    sizes = {-(-elements // (fewest * times)) for times in PARTS}
    return sorted(size for size in sizes if size >= min(FEWEST_LANES, elements))


def high_of(element: SparseAttr, lanes: int, most: int) -> int:
    """Rows at once, whose indices fit a word of memory; of one block where they share columns."""
    if element.keep.data == element.of.data:
        return most - most % 2 if most > 1 else most
    indices = lanes * element.keep.data * element.index_bits
    if not element.is_shared:
        return min(most, PORT_BITS // indices)
    if indices > PORT_BITS:
        return 0
    return max((one for one in range(1, most + 1) if not element.block.data % one), default=0)


def _check_sizes(product: Product) -> None:
    for what, found, most in (
        ("rows", product.rows, 1 << 20),
        ("columns", product.cols, MOST_COLS),
        ("tokens", product.tokens, MOST_TOKEN_ROWS),
    ):
        if not 1 <= found <= most:
            raise DesignError(f"a product of {found} {what}", accepted=f"1 to {most} {what}")


def ways_of(element: ElementAttr, tiling: TilingAttr) -> int:
    """As few tables at once as fill the next tile's while rows pass by."""
    if not isinstance(element, LookupAttr):
        return 1
    lanes = tiling.lanes.data
    able = [ways for ways in range(1, lanes + 1) if not lanes % ways]
    able = [ways for ways in able if ways * element.width <= ENTRIES]
    hidden = [ways for ways in able if lanes // ways * ENTRIES <= tiling.row_blocks]
    return min(hidden, default=max(able))
