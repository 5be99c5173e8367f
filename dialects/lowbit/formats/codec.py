"""Bytes of a stored matrix to its canonical form and back, for every layout."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.arrays import U8
from nybble.dialects.lowbit.formats.assembly import (
    Stored,
    Tree,
    assemble,
    check_codes,
    empty_weight,
    in_basis,
    plain_weight,
    stored_scale,
    stored_zero,
    stored_zero_codes,
)
from nybble.dialects.lowbit.formats.description import Description
from nybble.dialects.lowbit.formats.errors import FormatError
from nybble.dialects.lowbit.formats.grid_blocks import GRID_BLOCKS
from nybble.dialects.lowbit.formats.layout import Layout, TreeFields
from nybble.dialects.lowbit.formats.numeric import decode_floats, encode_floats
from nybble.dialects.lowbit.formats.scale import IntegerZero, ScaleTree, SuperScale
from nybble.dialects.lowbit.formats.stream import pack_stream, unpack_stream
from nybble.dialects.lowbit.formats.trees import expand
from nybble.dialects.lowbit.formats.weight import TreeParts, Weight

Item = TypeVar("Item", bound=np.generic)


def unpack(description: Description, raw: U8, cols: int) -> Weight:
    """Stored bytes to the canonical form of [rows, cols].

    raw: u8 [rows, row_bytes(cols)]; of a streamed format u8 [n]. Raises FormatError on an array of
    another type or shape, on a stream that is not one, and for a format without a codec.
    """
    description.check_storable()
    if description.is_streamed:
        return unpack_stream(description, raw, cols)
    expected = description.row_bytes(cols)
    if raw.dtype != np.uint8 or raw.ndim != 2 or raw.shape[1] != expected:
        raise FormatError(
            f"{raw.dtype} array of shape {raw.shape} as '{description.spec}' of {cols} columns",
            accepted=f"uint8 of shape (rows, {expected})",
        )
    description.check_shape((raw.shape[0], cols))
    return in_basis(description, _unpack_rows(description, np.ascontiguousarray(raw), cols))


def _unpack_rows(description: Description, raw: U8, cols: int) -> Weight:
    if description.is_plain:
        return plain_weight(description, decode_floats(description.element.spell, raw))
    if cols == 0:
        return empty_weight(description, raw.shape[0], 0)
    if description.store in GRID_BLOCKS:
        return _vector_codes(description, raw, cols)
    return assemble(description, _read(description, raw, cols))


def _vector_codes(description: Description, raw: U8, cols: int) -> Weight:
    """A weight of a vector codebook, with a code for each of the numbers that it makes."""
    block, rows = GRID_BLOCKS[description.store], raw.shape[0]
    integers, base, odd = block.integers(raw.reshape(raw.size // block.bytes, block.bytes))
    table = np.array(block.values, np.float32)
    codes = np.searchsorted(table, integers).astype(np.uint8).reshape(rows, cols)
    parts = TreeParts(base.reshape(rows, -1), odd.reshape(rows, -1))
    with np.errstate(invalid="ignore", over="ignore"):
        scale = parts.spread(parts.base) * parts.codes
    return Weight(description.spec, codes, scale, table=table, scale_parts=parts)


def _read(description: Description, raw: U8, cols: int) -> Stored:
    rows = raw.shape[0]
    layout = description.layout(cols)
    per_row = cols // layout.weights
    fields = layout.split(raw.reshape(rows * per_row, layout.bytes))
    unit, zero = description.element.unit, description.zero
    scale = _read_tree(description.scale, layout.scale, fields, per_row, unit)
    minimum, zero_codes = None, None
    if isinstance(zero, IntegerZero):
        assert layout.zero is not None
        assert layout.zero.codes is not None
        zero_codes = _by_row(layout.zero.codes.read(fields), per_row)
    elif zero is not None:
        minimum = _read_tree(zero.tree, layout.zero, fields, per_row)
    selector = None if layout.selector is None else layout.selector.read(fields)
    return Stored(
        layout.codes.read(fields).reshape(rows, cols),
        scale,
        minimum,
        zero_codes,
        None if selector is None else _by_row(selector, per_row),
    )


def _by_row(blocks: npt.NDArray[Item], per_row: int) -> npt.NDArray[Item]:
    count, size = blocks.shape
    return blocks.reshape(count // per_row, size * per_row)


def _read_tree(
    tree: ScaleTree | None,
    where: TreeFields | None,
    fields: dict[str, U8],
    per_row: int,
    unit: float = 1.0,
) -> Tree | None:
    if tree is None or where is None:
        return None
    assert where.base is not None
    base = _by_row(decode_floats(tree.dtype, fields[where.base], unit), per_row)
    if not isinstance(tree, SuperScale):
        return base, None
    assert where.codes is not None
    parts = TreeParts(base, _by_row(where.codes.read(fields), per_row))
    return expand(tree, parts), parts


def pack(description: Description, weight: Weight) -> U8:
    """The canonical form to stored bytes: the inverse of `unpack`.

    Raises FormatError for a weight of another format, codes out of range, or no codec.
    """
    rows, cols = weight.shape
    if weight.spec != description.spec:
        raise FormatError(f"a weight of '{weight.spec}' packed as '{description.spec}'")
    description.check_shape((rows, cols))
    description.check_storable()
    if description.is_streamed:
        return pack_stream(description, weight)
    row_bytes = description.row_bytes(cols)
    if description.is_plain:
        return encode_floats(description.element.spell, weight.require_values())
    check_codes(description, weight.require_codes())
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
    scale, zero = stored_scale(description, weight), stored_zero(description, weight)
    if description.scale is not None and scale is not None:
        _write_tree(description.scale, layout.scale, scale, fields)
    if zero is not None and not isinstance(description.zero, IntegerZero | None):
        _write_tree(description.zero.tree, layout.zero, zero, fields)
    zero_codes = stored_zero_codes(description, weight)
    if zero_codes is not None and layout.zero is not None and layout.zero.codes is not None:
        layout.zero.codes.write(zero_codes.reshape(blocks, -1), fields)


def _write_tree(
    tree: ScaleTree, where: TreeFields | None, stored: Tree, fields: dict[str, U8]
) -> None:
    assert where is not None
    assert where.base is not None
    target = fields[where.base]
    values, parts = stored
    if not isinstance(tree, SuperScale):
        target[:] = encode_floats(tree.dtype, values.reshape(target.shape[0], -1))
        return
    if parts is None or where.codes is None:
        raise FormatError("a two-level scale without its stored parts cannot be packed")
    target[:] = encode_floats(tree.dtype, parts.base.reshape(target.shape[0], -1))
    where.codes.write(parts.codes.reshape(target.shape[0], where.codes.count), fields)
