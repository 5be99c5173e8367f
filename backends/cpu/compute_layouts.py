"""Every compute layout of weights by its name in the IR: its size, and the packing into it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu import lut_weights, plane_weights, weights
from nybble.dialects.lowbit.formats import Format, FormatError, Weight
from nybble.dialects.lowbit.types import LowBitTensorType

Bytes = npt.NDArray[np.uint8]
Shape = tuple[int, int]


@dataclass(frozen=True)
class ComputeLayout:
    """size: bytes of a weight [rows, cols] of a format. pack: a weight in this layout.

    Both raise FormatError or LayoutError for what the layout cannot hold.
    """

    size: Callable[[Format, Shape], int]
    pack: Callable[[Format, Weight], Bytes]


def _lut_size(description: Format, shape: Shape, order: lut_weights.Order) -> int:
    return lut_weights.lut_layout(description, shape, order).size


def _plane_size(description: Format, shape: Shape) -> int:
    return plane_weights.plane_layout(description, shape).size


COMPUTE_LAYOUTS = {
    "tile64": ComputeLayout(weights.packed_size, weights.pack_weight),
    "lut1": ComputeLayout(
        partial(_lut_size, order="lut1"), partial(lut_weights.pack_lut, order="lut1")
    ),
    "lut4": ComputeLayout(
        partial(_lut_size, order="lut4"), partial(lut_weights.pack_lut, order="lut4")
    ),
    "planes64": ComputeLayout(_plane_size, plane_weights.pack_plane_weight),
}


def _layout(type_: LowBitTensorType) -> ComputeLayout:
    if type_.layout.data not in COMPUTE_LAYOUTS:
        raise FormatError(
            f"a weight in layout '{type_.layout.data}' on a CPU",
            accepted=", ".join(COMPUTE_LAYOUTS),
        )
    return COMPUTE_LAYOUTS[type_.layout.data]


def packed_size(type_: LowBitTensorType) -> int:
    """Bytes of a weight in the layout of its type."""
    shape = (type_.rows, type_.cols)
    return _layout(type_).size(type_.number_format, shape)


def pack_weight(type_: LowBitTensorType, weight: Weight) -> Bytes:
    """A weight in the layout of its type."""
    return _layout(type_).pack(type_.number_format, weight)


def pack_storage(type_: LowBitTensorType, raw: Bytes) -> Bytes:
    """Storage bytes of a weight, u8 [rows, row_bytes] or a stream, in the layout of its type."""
    return pack_weight(type_, type_.number_format.unpack(raw, type_.cols))
