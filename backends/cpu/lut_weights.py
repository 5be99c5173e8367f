"""How a weight of a number format is held for products by lookup tables."""

from dataclasses import fields

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu import lut_packing
from nybble.backends.cpu.kernels.matmul.lut_spec import LutCodes
from nybble.backends.cpu.kernels.matmul.spec import Codes
from nybble.backends.cpu.lut_packing import LutLayout, Order
from nybble.backends.cpu.weights import weight_kind
from nybble.dialects.lowbit.formats import Format, FormatError

Bytes = npt.NDArray[np.uint8]


def lut_codes(description: Format, cols: int, order: Order) -> LutCodes:
    """What the kernels see of a format in rows of `cols` weights, as indices in an order.

    Raises FormatError for a format that has none.
    """
    kind = weight_kind(description)
    if not isinstance(kind, Codes):
        raise FormatError(
            f"weights of '{description.spec}' cannot be looked up",
            accepted="integer codes of 1 to 4 bits whose values lie on a line",
        )
    return LutCodes(**{f.name: getattr(kind, f.name) for f in fields(kind)}, order=order)


def lut_layout(description: Format, shape: tuple[int, int], order: Order) -> LutLayout:
    """The compute layout of a weight [rows, cols]; raises FormatError or LayoutError."""
    return lut_codes(description, shape[1], order).layout(*shape)


def pack_lut(description: Format, raw: Bytes, shape: tuple[int, int], order: Order) -> Bytes:
    """Storage bytes u8 [rows, row_bytes] of a weight [rows, cols] in its compute layout."""
    layout = lut_layout(description, shape, order)
    return lut_packing.pack(description.unpack(raw, shape[1]), layout)
