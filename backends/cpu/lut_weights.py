"""How a weight of a number format is held for products by lookup tables."""

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu import lut_packing
from nybble.backends.cpu.kernels.matmul.codes import Codes
from nybble.backends.cpu.lut_packing import LutLayout, Order
from nybble.backends.cpu.weights import weight_kind
from nybble.dialects.lowbit.formats import Format, FormatError

Bytes = npt.NDArray[np.uint8]


def lut_codes(description: Format, cols: int) -> Codes:
    """What the kernels see of a format in rows of `cols` weights.

    Raises FormatError for one whose codes are no line.
    """
    kind = weight_kind(description, cols)
    if not isinstance(kind, Codes) or kind.table is not None:
        raise FormatError(
            f"weights of '{description.spec}' cannot be looked up",
            accepted="integer codes of 1 to 4 bits whose values lie on a line",
        )
    return kind


def lut_layout(description: Format, shape: tuple[int, int], order: Order) -> LutLayout:
    """The compute layout of a weight [rows, cols]; raises FormatError or LayoutError."""
    codes = lut_codes(description, shape[1])
    return LutLayout(*shape, codes.bits, codes.group, codes.has_zero, codes.scale, order)


def pack_lut(description: Format, raw: Bytes, shape: tuple[int, int], order: Order) -> Bytes:
    """Storage bytes u8 [rows, row_bytes] of a weight [rows, cols] in its compute layout."""
    layout = lut_layout(description, shape, order)
    return lut_packing.pack(description.unpack(raw, shape[1]), layout)
