"""How a weight of a number format is held for the matmul kernels, and the packing that does it."""

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.kernels.matmul.spec import Codes, Dense
from nybble.backends.cpu.packing import DenseLayout, FloatName, TileLayout, pack, pack_dense
from nybble.dialects.lowbit.formats import Format, FormatError
from nybble.dialects.lowbit.formats.element import PlainFloat, TwoDigits, Uniform
from nybble.dialects.lowbit.formats.scale import FloatScale, StoredMin

Bytes = npt.NDArray[np.uint8]
FLOATS: dict[str, FloatName] = {"f32": "f32", "f16": "f16", "bf16": "bf16"}


def weight_kind(description: Format) -> Codes | Dense:
    """What the kernels see of a format; raises FormatError for one they cannot hold.

    Scales and zeros are kept as f16 where the format stores both as f16, else as f32.
    """
    element = description.element
    if isinstance(element, PlainFloat):
        return Dense(FLOATS[element.name])
    if not element.has_codes or element.table is not None:
        raise FormatError(
            f"the CPU backend cannot hold weights of format '{description.spec}'",
            accepted="plain floats, and integer codes with scales and zeros",
        )
    if description.sparsity is not None or description.corrections:
        raise FormatError(
            f"the CPU backend cannot hold the sparsity or corrections of '{description.spec}'",
            accepted="dense formats without corrections",
        )
    return Codes(
        bits=element.bits,
        group=description.group,
        zero_point=element.zero_point,
        has_zero=description.zero is not None,
        scale="f16" if _is_stored_as_f16(description) else "f32",
    )


def _is_stored_as_f16(description: Format) -> bool:
    half = FloatScale("f16")
    zero = description.zero
    return description.scale == half and (
        zero is None or (isinstance(zero, StoredMin) and zero.tree == half)
    )


def digits_of(description: Format) -> int:
    """How many 8-bit digits an activation of a format has; raises FormatError for other formats."""
    element = description.element
    if isinstance(element, TwoDigits):
        return 2
    if isinstance(element, Uniform) and element.bits == 8 and element.narrow:
        return 1
    raise FormatError(
        f"the CPU backend does not take activations of format '{description.spec}'",
        accepted="a8gN, a16gN; a weight needs a compute layout (pass assign-layout)",
    )


def layout_of(description: Format, shape: tuple[int, int]) -> TileLayout | DenseLayout:
    """The compute layout of a weight [rows, cols]; raises FormatError or LayoutError."""
    return weight_kind(description).layout(*shape)


def pack_storage(description: Format, raw: Bytes, shape: tuple[int, int]) -> Bytes:
    """Storage bytes u8 [rows, row_bytes] of a weight [rows, cols] in its compute layout."""
    layout = layout_of(description, shape)
    weight = description.unpack(raw, shape[1])
    if isinstance(layout, DenseLayout):
        return pack_dense(weight.dequantize(), layout)
    return pack(weight, layout)
