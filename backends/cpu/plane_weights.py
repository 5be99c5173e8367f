"""How weights and activations of a number format are held for products by popcounts."""

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.bit_planes import PlaneLayout, pack_planes
from nybble.backends.cpu.float_bytes import FloatName
from nybble.backends.cpu.kernels.bit_rows import PlaneRows
from nybble.backends.cpu.kernels.matmul.bitserial import Planes
from nybble.dialects.lowbit.formats import Format, FormatError, Weight
from nybble.dialects.lowbit.formats.affine import affine
from nybble.dialects.lowbit.formats.element import Bipolar
from nybble.dialects.lowbit.formats.scale import FloatScale, StoredMin
from nybble.dialects.lowbit.types import LowBitTensorType

Bytes = npt.NDArray[np.uint8]
Shape = tuple[int, int]


def planes_of(description: Format, cols: int) -> Planes:
    """What the kernels see of a weight of `cols` columns; FormatError for one without planes.

    `T(c) = step c + first` is `step / 2 (B(c) + offset)` of the bipolar `B(c) = 2 c - (2^n - 1)`.
    """
    line = affine(description.element)
    if line is None or 2 * line.first % line.step:
        raise FormatError(
            f"codes of '{description.spec}' are no integers on a line",
            accepted="wN, bipN, ternary, Q4_0 to Q6_K: integers less a zero point",
        )
    if description.sparsity is not None or description.corrections:
        raise FormatError(
            f"bit planes cannot hold the sparsity or corrections of '{description.spec}'",
            accepted="dense formats without corrections",
        )
    if description.grouping.axis != "cols":
        raise FormatError(f"'{description.spec}' is grouped across rows", accepted="along columns")
    bits = description.element.bits
    return Planes(
        bits=bits,
        group=description.group_size(cols),
        unit=line.step / 2,
        offset=2**bits - 1 + 2 * line.first // line.step,
        has_zero=description.zero is not None,
        scale=_scale_type(description),
    )


def _scale_type(description: Format) -> FloatName:
    """f16 where scales and zeros are stored so, else f32."""
    zero = description.zero
    minimum = isinstance(zero, StoredMin) and zero.tree == FloatScale("f16")
    half = description.scale == FloatScale("f16") and (zero is None or minimum)
    return "f16" if half else "f32"


def plane_layout(description: Format, shape: Shape) -> PlaneLayout:
    """The layout of a weight [rows, cols]; raises FormatError or LayoutError."""
    return planes_of(description, shape[1]).layout(*shape)


def pack_plane_weight(description: Format, weight: Weight) -> Bytes:
    """A weight in its planes."""
    return pack_planes(weight, plane_layout(description, weight.shape))


def plane_rows(type_: LowBitTensorType, tokens: int, lanes: int = 8) -> PlaneRows | None:
    """The planes of at most `tokens` rows of an activation; None where it is not bipolar."""
    form = type_.number_format
    if not isinstance(form.element, Bipolar):
        return None
    return PlaneRows(type_.cols, tokens, form.group_size(type_.cols), form.element.bits, lanes)
