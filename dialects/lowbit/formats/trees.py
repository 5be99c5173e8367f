"""Scale trees: what one stores of ideal scales or minima, and what the stored parts mean."""

from dataclasses import replace

import numpy as np

from nybble.dialects.lowbit.formats.arrays import F32, U8
from nybble.dialects.lowbit.formats.ggml_rounding import signed_extreme
from nybble.dialects.lowbit.formats.nearest import ratio
from nybble.dialects.lowbit.formats.numeric import decode_floats, encode_floats, round_to
from nybble.dialects.lowbit.formats.scale import FloatScale, ScaleTree, SuperScale, TensorScale
from nybble.dialects.lowbit.formats.structure import Grouping
from nybble.dialects.lowbit.formats.weight import TreeParts

_UNSIGNED = ("e8m0", "e4m3")
_LARGEST_E4M3 = np.float32(448)


def can_be_negative(tree: ScaleTree) -> bool:
    """Whether the values of one super-group may have both signs."""
    if isinstance(tree, SuperScale):
        return tree.offset > 0 or tree.has_low
    return tree.dtype not in _UNSIGNED


def expand(tree: ScaleTree, parts: TreeParts) -> F32:
    """What the parts of a tree of two levels stand for: f32 [rows, groups].

    A sub-scale is `base * (codes - offset)` or `base * codes + low`, a scale under one of the
    matrix is `base * float`, each operation rounded to f32.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if not isinstance(tree, SuperScale):
            return parts.base * decode_floats(tree.dtype, parts.codes)
        small = (parts.codes.astype(np.int16) - tree.offset).astype(np.float32)
        product = parts.spread(parts.base) * small
        return product if parts.low is None else product + parts.spread(parts.low)


def times_unit(parts: TreeParts, unit: float) -> TreeParts:
    """The parts of a tree whose values are `unit`, a power of two, times as large."""
    if unit == 1:
        return parts  # which keeps the payload of a NaN
    with np.errstate(over="ignore", invalid="ignore"):
        low = None if parts.low is None else parts.low * np.float32(unit)
        return replace(parts, base=parts.base * np.float32(unit), low=low)


def store_tree(tree: ScaleTree, grouping: Grouping, ideal: F32) -> tuple[F32, TreeParts | None]:
    """What is stored for f32 [rows, groups], and the parts of a tree of two levels.

    Raises FormatError if a number is too large for its type.
    """
    if isinstance(tree, FloatScale):
        return round_to(tree.dtype, ideal), None
    parts = _under_tensor(tree, ideal) if isinstance(tree, TensorScale) else None
    parts = parts or _super_parts(tree, grouping, ideal)
    return expand(tree, parts), parts


def _under_tensor(tree: TensorScale, ideal: F32) -> TreeParts:
    """The matrix's scale brings the largest float to the top of its type (NVFP4's recipe)."""
    largest = np.abs(ideal).max(initial=0)
    top = _LARGEST_E4M3 if tree.dtype == "e4m3" else np.float32(1)
    base = np.float32(largest / top)
    inner = ratio(ideal, np.full((1, 1), base, np.float32))
    return TreeParts(np.full((1, 1), base, np.float32), encode_floats(tree.dtype, inner))


def _super_parts(tree: ScaleTree, grouping: Grouping, ideal: F32) -> TreeParts:
    assert isinstance(tree, SuperScale)
    tall = grouping.count if grouping.axis == "tile" else 1
    supers = _supers_of(ideal, grouping)
    top = 2**tree.width - 1
    low = round_to(tree.dtype, supers.min(axis=-1)) if tree.has_low else None
    above = supers if low is None else supers - low[:, :, None]
    base = round_to(tree.dtype, _ideal_base(tree, above))
    codes = np.rint(ratio(above, base[:, :, None])) + np.float32(tree.offset)
    codes = np.clip(codes, 0, top)
    if tree.offset == 0:
        # A group that is not zero keeps a scale that is not zero.
        lost = (codes == 0) & (supers > 0) & (base > 0)[:, :, None]
        codes = np.where(lost if low is None else lost & (low <= 0)[:, :, None], 1, codes)
    return TreeParts(base, _groups_of(codes.astype(np.uint8), grouping, ideal.shape), tall, low)


def _supers_of(ideal: F32, grouping: Grouping) -> F32:
    """f32 [rows, groups] by super-group: [rows / tall, supers, count], the last rows repeated."""
    rows, groups = ideal.shape
    count = grouping.count
    if grouping.axis != "tile":
        return ideal.reshape(rows, groups // count, count)
    padded = np.pad(ideal, ((0, -rows % count), (0, 0)), mode="edge") if rows else ideal
    return padded.reshape(-1, count, groups).transpose(0, 2, 1)


def _groups_of(codes: U8, grouping: Grouping, shape: tuple[int, ...]) -> U8:
    """The inverse of `_supers_of`."""
    if grouping.axis != "tile":
        return codes.reshape(shape)
    return np.ascontiguousarray(codes.transpose(0, 2, 1).reshape(-1, shape[1])[: shape[0]])


def _ideal_base(tree: SuperScale, supers: F32) -> F32:
    if tree.offset:
        return signed_extreme(supers)[:, :, 0] / np.float32(-tree.offset)
    return np.maximum(supers, 0).max(axis=-1) / np.float32(2**tree.width - 1)
