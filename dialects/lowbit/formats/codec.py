"""Bytes of a stored matrix to its canonical form and back, for every layout."""

from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.arrays import F32, U8
from nybble.dialects.lowbit.formats.description import Description
from nybble.dialects.lowbit.formats.errors import FormatError
from nybble.dialects.lowbit.formats.grid_blocks import GRID_BLOCKS
from nybble.dialects.lowbit.formats.layout import Layout, TreeFields
from nybble.dialects.lowbit.formats.numeric import decode_floats, encode_floats
from nybble.dialects.lowbit.formats.scale import FloatScale, IntegerZero, ScaleTree, StoredMin
from nybble.dialects.lowbit.formats.weight import TreeParts, Weight

Item = TypeVar("Item", bound=np.generic)


def unpack(description: Description, raw: U8, cols: int) -> Weight:
    """Stored bytes u8 [rows, row_bytes(cols)] to the canonical form of [rows, cols].

    Raises FormatError on an array of another type or shape, or a format without a codec.
    """
    expected = description.row_bytes(cols)
    if raw.dtype != np.uint8 or raw.ndim != 2 or raw.shape[1] != expected:
        raise FormatError(
            f"{raw.dtype} array of shape {raw.shape} as '{description.spec}' of {cols} columns",
            accepted=f"uint8 of shape (rows, {expected})",
        )
    description.check_shape((raw.shape[0], cols))
    raw = np.ascontiguousarray(raw)
    if description.is_plain:
        return plain_weight(description, decode_floats(description.element.spell, raw))
    if description.store in GRID_BLOCKS:
        block = GRID_BLOCKS[description.store]
        blocks = raw.reshape(raw.size // block.bytes, block.bytes)
        return plain_weight(description, block.decode(blocks).reshape(raw.shape[0], cols))
    if cols == 0:
        return empty_weight(description, raw.shape[0])
    return _unpack_coded(description, raw, cols)


def plain_weight(description: Description, values: F32) -> Weight:
    """A weight that has values f32 [rows, cols] and no codes."""
    scale = np.zeros((values.shape[0], 0), np.float32)
    return Weight(description.spec, None, scale, values=values)


def empty_weight(description: Description, rows: int) -> Weight:
    """A coded weight of no columns."""
    nothing = np.zeros((rows, 0), np.float32)
    element = description.element
    return Weight(
        description.spec,
        nothing.astype(np.uint8),
        nothing,
        zero=None if description.zero is None else nothing,
        zero_point=element.zero_point,
        table=element.plain_table,
        selector=nothing.astype(np.uint8) if element.choices > 1 else None,
    )


def _unpack_coded(description: Description, raw: U8, cols: int) -> Weight:
    rows = raw.shape[0]
    layout = description.layout(cols)
    per_row = cols // layout.weights
    fields = layout.split(raw.reshape(rows * per_row, layout.bytes))
    element, zero = description.element, description.zero
    groups = cols // description.group_size(cols)
    scale, scale_parts = unit_scale(description, rows, groups), None
    if description.scale is not None:
        assert layout.scale is not None
        scale, scale_parts = _read_tree(
            description.scale, layout.scale, fields, per_row, element.unit
        )
    minimum, zero_parts, zero_codes = None, None, None
    if isinstance(zero, StoredMin):
        assert layout.zero is not None
        minimum, zero_parts = _read_tree(zero.tree, layout.zero, fields, per_row)
        minimum = -minimum if zero.negated else minimum
    elif isinstance(zero, IntegerZero):
        assert layout.zero is not None
        assert layout.zero.codes is not None
        zero_codes = layout.zero.codes.read(fields).reshape(rows, groups)
        minimum = integer_zero(scale, zero_codes)
    selector = None if layout.selector is None else layout.selector.read(fields)
    return Weight(
        description.spec,
        layout.codes.read(fields).reshape(rows, cols),
        scale,
        zero=minimum,
        zero_point=element.zero_point,
        table=element.plain_table,
        selector=None if selector is None else selector.reshape(rows, groups),
        scale_parts=scale_parts,
        zero_parts=zero_parts,
        zero_codes=zero_codes,
    )


def unit_scale(description: Description, rows: int, groups: int) -> F32:
    """The scale f32 [rows, groups] of a format that stores none."""
    return np.full((rows, groups), description.element.unit, np.float32)


def integer_zero(scale: F32, codes: U8) -> F32:
    """Z of a stored integer zero: -S * z, f32 [rows, groups]."""
    with np.errstate(invalid="ignore", over="ignore"):
        return -(scale * codes.astype(np.float32))


def _by_row(blocks: npt.NDArray[Item], per_row: int) -> npt.NDArray[Item]:
    count, size = blocks.shape
    return blocks.reshape(count // per_row, size * per_row)


def _read_tree(
    tree: ScaleTree, where: TreeFields, fields: dict[str, U8], per_row: int, unit: float = 1.0
) -> tuple[F32, TreeParts | None]:
    assert where.base is not None
    base = _by_row(decode_floats(tree.dtype, fields[where.base], unit), per_row)
    if isinstance(tree, FloatScale):
        return base, None
    assert where.codes is not None
    parts = TreeParts(base, _by_row(where.codes.read(fields), per_row))
    return parts.expand(tree.offset), parts


def pack(description: Description, weight: Weight) -> U8:
    """The canonical form to stored bytes u8 [rows, row_bytes(cols)]: the inverse of `unpack`.

    Raises FormatError for a weight of another format, codes out of range, or no codec.
    """
    rows, cols = weight.shape
    if weight.spec != description.spec:
        raise FormatError(f"a weight of '{weight.spec}' packed as '{description.spec}'")
    description.check_shape((rows, cols))
    row_bytes = description.row_bytes(cols)
    if description.is_plain:
        return encode_floats(description.element.spell, weight.require_values())
    codes = weight.require_codes()
    if description.element.bits < 8 and codes.size and codes.max() >> description.element.bits:
        raise FormatError(
            f"code {codes.max()} in format '{description.spec}'",
            accepted=f"0 to {2**description.element.bits - 1}",
        )
    packed = np.zeros((rows, row_bytes), np.uint8)
    if packed.size:
        layout = description.layout(cols)
        fields = layout.split(packed.reshape(packed.size // layout.bytes, layout.bytes))
        _write(description, layout, weight, fields)
    return packed


def _write(description: Description, layout: Layout, weight: Weight, fields: dict[str, U8]) -> None:
    blocks = next(iter(fields.values())).shape[0]
    layout.codes.write(weight.require_codes().reshape(blocks, layout.weights), fields)
    if layout.selector is not None and weight.selector is not None:
        layout.selector.write(weight.selector.reshape(blocks, -1), fields)
    if description.scale is not None and layout.scale is not None:
        unit, parts = description.element.unit, weight.scale_parts
        if parts is not None:
            parts = replace(parts, base=_divide(parts.base, unit))
        stored = _divide(weight.scale, unit)
        _write_tree(description.scale, layout.scale, stored, parts, fields)
    zero = description.zero
    if isinstance(zero, StoredMin) and layout.zero is not None and weight.zero is not None:
        stored = -weight.zero if zero.negated else weight.zero
        _write_tree(zero.tree, layout.zero, stored, weight.zero_parts, fields)
    if isinstance(zero, IntegerZero) and layout.zero is not None:
        if weight.zero_codes is None or layout.zero.codes is None:
            raise FormatError(f"a weight of '{weight.spec}' without its stored zeros")
        layout.zero.codes.write(weight.zero_codes.reshape(blocks, -1), fields)


def _divide(scale: F32, unit: float) -> F32:
    """scale / unit, exact but for an overflow to infinity (an e8m0 of 255)."""
    if unit == 1:
        return scale
    with np.errstate(over="ignore", invalid="ignore"):
        return scale / np.float32(unit)


def _write_tree(
    tree: ScaleTree,
    where: TreeFields,
    values: F32,
    parts: TreeParts | None,
    fields: dict[str, U8],
) -> None:
    assert where.base is not None
    target = fields[where.base]
    if isinstance(tree, FloatScale):
        target[:] = encode_floats(tree.dtype, values.reshape(target.shape[0], -1))
        return
    if parts is None or where.codes is None:
        raise FormatError("a two-level scale without its stored parts cannot be packed")
    target[:] = encode_floats(tree.dtype, parts.base.reshape(target.shape[0], -1))
    where.codes.write(parts.codes.reshape(target.shape[0], where.codes.count), fields)
