"""What a product becomes on a device: its element, how it is cut, and whether that fits."""

from dataclasses import dataclass
from functools import cached_property

from nybble.backends.fpga.elements import ELEMENTS
from nybble.costmodel.targets.reader import find_target
from nybble.costmodel.targets.target import Target
from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.attrs import ENTRIES, ElementAttr, LookupAttr, TilingAttr
from nybble.dialects.lowbit import formats
from nybble.passes.targets import Product

MOST_LANES = 16
"""Lanes of an array: what they add up in one tree of adders."""
PORT_BITS = 512
"""Bits of a word of a memory channel, which a DDR controller or two HBM channels give in a cycle of
a clock around 225 MHz."""
MOST_RESULTS = 32
"""Results of a cycle: the floats of a word of the widest AXI bus."""
MOST_TOKENS = 4
"""Tokens that an array takes in a cycle."""
MOST_COLS = 1 << 16
MOST_TOKEN_ROWS = 4096


class DesignError(NybbleError):
    """A product that no design computes."""


@dataclass(frozen=True)
class Design:
    """A product on a device. channels: memories that a word of weights is read from.

    ways: lanes whose tables are built at once.
    """

    spec: str
    element: ElementAttr
    tiling: TilingAttr
    channels: int
    ways: int
    device: str

    @property
    def description(self) -> formats.Format:
        """The format of the weight."""
        return formats.get(self.spec)

    @cached_property
    def target(self) -> Target:
        """The device's description."""
        return find_target(self.device)


def design(dataflow: str, product: Product, device: str, channels: int = 1) -> Design:
    """The design of a product by a dataflow; NybbleError with the reason where there is none."""
    description = product.description
    description.check_shape((product.rows, product.cols))
    element = ELEMENTS[dataflow](description)
    _check_sizes(product)
    group = description.group_size(product.cols)
    lanes = lanes_of(group, element.width)
    wide = min(product.tokens, MOST_TOKENS)
    row_bits = lanes * element.fields * element.field_bits
    high = min(channels * PORT_BITS // row_bits, MOST_RESULTS // wide, product.rows)
    if not high:
        raise DesignError(
            f"a row of weights of '{description.spec}' takes {row_bits} bits in a cycle",
            accepted=f"up to {channels * PORT_BITS} bits of {channels} memory channel(s)",
        )
    tiling = TilingAttr.get(
        tokens=product.tokens,
        rows=product.rows,
        cols=product.cols,
        group=group,
        lanes=lanes,
        width=element.width,
        high=high,
        wide=wide,
    )
    return Design(description.spec, element, tiling, channels, ways_of(element, tiling), device)


def _check_sizes(product: Product) -> None:
    for what, found, most in (
        ("rows", product.rows, 1 << 20),
        ("columns", product.cols, MOST_COLS),
        ("tokens", product.tokens, MOST_TOKEN_ROWS),
    ):
        if not 1 <= found <= most:
            raise DesignError(f"a product of {found} {what}", accepted=f"1 to {most} {what}")


def lanes_of(group: int, width: int) -> int:
    """Lanes of an array, so that the tiles of a group are as full as they can be."""
    elements = -(-group // width)
    most = MOST_LANES * 2 if width == 1 else MOST_LANES
    return -(-elements // -(-elements // most))


def ways_of(element: ElementAttr, tiling: TilingAttr) -> int:
    """As few tables at once as fill the next tile's while rows pass by."""
    if not isinstance(element, LookupAttr):
        return 1
    lanes = tiling.lanes.data
    able = [ways for ways in range(1, lanes + 1) if not lanes % ways]
    able = [ways for ways in able if ways * element.width <= ENTRIES]
    hidden = [ways for ways in able if lanes // ways * ENTRIES <= tiling.row_blocks]
    return min(hidden, default=max(able))
