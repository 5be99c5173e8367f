"""Products of bipolar integers: bits that differ, counted for each pair of planes.

A bipolar integer is a sum of signs, `sum_p 2^p b_p` with every `b_p` -1 or 1 (bipolar-INT, arXiv
2409.17870). A product of two signs is 1 where their bits agree, so a sum of products of two planes
is the number of columns less twice the number of those whose bits differ.
"""

import numpy as np
from xdsl.dialects.builtin import IntAttr
from xdsl.irdl import irdl_attr_definition
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.fpga.attrs import ElementAttr, Integers
from nybble.dialects.fpga.types import bits_for

COLUMNS = 8
"""Columns of an element: bits of a field."""
MOST_PLANES = 4


@irdl_attr_definition
class XnorAttr(ElementAttr):
    """Bits of weights and of activations are compared, `planes` times `taken` of each column."""

    name = "fpga.xnor"
    FIELDS = ("planes", "taken")
    planes: IntAttr
    taken: IntAttr

    @property
    def width(self) -> int:
        """See `ElementAttr`."""
        return COLUMNS

    @property
    def field_bits(self) -> int:
        """See `ElementAttr`: a bit of each column."""
        return COLUMNS

    @property
    def fields(self) -> int:
        """See `ElementAttr`: one for each plane."""
        return self.planes.data

    @property
    def largest(self) -> int:
        """See `ElementAttr`."""
        return 2**self.planes.data - 1

    @property
    def activation_planes(self) -> int:
        """See `ElementAttr`."""
        return self.taken.data

    def start(self, columns: int) -> int:
        """See `ElementAttr`: what is summed where all bits agree, as those of padding do."""
        return columns * self.largest * (2**self.taken.data - 1)

    def dot_bits(self, columns: int) -> int:
        """See `ElementAttr`."""
        return bits_for(-self.start(columns), self.start(columns))

    def encode(self, codes: Integers) -> Integers:
        """See `ElementAttr`: the bits of a plane, those of padding 0."""
        bits = np.maximum(codes, 0)[..., None, :] >> np.arange(self.planes.data)[:, None] & 1
        return (bits << np.arange(COLUMNS)).sum(axis=-1)

    def dots(self, held: Integers, fields: Integers) -> Integers:
        """See `ElementAttr`: held are codes [tiles, places, wide]; without `start`."""
        tiles, _, wide = held.shape
        codes = held.reshape(tiles, -1, COLUMNS, wide)
        places = np.arange(COLUMNS)[:, None]
        total = np.zeros((tiles, fields.shape[1], wide), np.int64)
        for other in range(self.taken.data):
            words = ((codes >> other & 1) << places).sum(axis=2)
            for plane in range(self.planes.data):
                differ = fields[:, :, plane, :, None] ^ words[:, None]
                counts = np.bitwise_count(differ.astype(np.uint8)).astype(np.int64).sum(axis=2)
                total -= counts << (1 + plane + other)
        return total

    def verify(self) -> None:
        for name in self.FIELDS:
            planes = getattr(self, name).data
            if not 1 <= planes <= MOST_PLANES:
                raise VerifyException(f"{name} of {planes}; accepted: 1 to {MOST_PLANES}")
