"""Rounding ideal scales or minima to what a scale tree can store."""

import numpy as np

from nybble.dialects.lowbit.formats.arrays import F32
from nybble.dialects.lowbit.formats.ggml_rounding import signed_extreme
from nybble.dialects.lowbit.formats.nearest import ratio
from nybble.dialects.lowbit.formats.numeric import round_to
from nybble.dialects.lowbit.formats.scale import FloatScale, ScaleTree, SuperScale
from nybble.dialects.lowbit.formats.weight import TreeParts

_UNSIGNED = ("e8m0", "e4m3")


def can_be_negative(tree: ScaleTree) -> bool:
    """Whether the values of one super-group may have both signs."""
    if isinstance(tree, FloatScale):
        return tree.dtype not in _UNSIGNED
    return tree.offset > 0


def store_tree(tree: ScaleTree, count: int, ideal: F32) -> tuple[F32, TreeParts | None]:
    """What is stored for f32 [rows, groups], and the halves of a two-level tree.

    count: groups per super-group. Raises FormatError if a number is too large for its type.
    """
    if isinstance(tree, FloatScale):
        return round_to(tree.dtype, ideal), None
    rows, groups = ideal.shape
    supers = ideal.reshape(rows, groups // count, count)
    base = round_to(tree.dtype, _ideal_base(tree, supers))
    top = 2**tree.width - 1
    codes = np.rint(ratio(supers, base[:, :, None])) + np.float32(tree.offset)
    codes = np.clip(codes, 0, top)
    if tree.offset == 0:
        # A group that is not zero keeps a scale that is not zero.
        codes = np.where((codes == 0) & (supers > 0) & (base > 0)[:, :, None], 1, codes)
    parts = TreeParts(base, codes.astype(np.uint8).reshape(rows, groups))
    return parts.expand(tree.offset), parts


def _ideal_base(tree: SuperScale, supers: F32) -> F32:
    if tree.offset:
        return signed_extreme(supers)[:, :, 0] / np.float32(-tree.offset)
    return np.maximum(supers, 0).max(axis=-1) / np.float32(2**tree.width - 1)
