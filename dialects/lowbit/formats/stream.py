"""Matrices stored as a stream of sections: sparse, corrected and entropy-coded weights.

What each part of a format contributes, in this order (`sections` has the container):

- a matrix of no rows or no columns has no sections;
- DFloat11: code lengths u8 [256], block offsets u32, code words, sign-and-mantissa bytes (see
  `entropy`), and nothing else;
- the index of the sparse pattern (see `sparse_index`);
- the scale: stored floats; with sub-scales the float of each super-group, its low end if it has
  one, and the integers; under a scale of the matrix that f32 and the floats;
- the zero: a tree like the scale's, or integers; then the selectors;
- the codes of what is kept (of plain floats the values), in the order of the index;
- each correction: outliers (`csr`: offsets and columns as in a sparse index, `coo`: i32 rows and
  columns; then the values), low-rank factors left and right, the smoothing vector f32.

Integers of a few bits are split in planes of 8, 4, 2 and 1 bits.
"""

from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats import entropy
from nybble.dialects.lowbit.formats.arrays import F32, U8
from nybble.dialects.lowbit.formats.assembly import (
    Stored,
    Tree,
    assemble,
    check_codes,
    empty_weight,
    in_basis,
    plain_weight,
    pruned_codes,
    stored_scale,
    stored_zero,
    stored_zero_codes,
)
from nybble.dialects.lowbit.formats.description import Description
from nybble.dialects.lowbit.formats.element import EntropyCoded
from nybble.dialects.lowbit.formats.errors import FormatError
from nybble.dialects.lowbit.formats.numeric import decode_floats, encode_floats
from nybble.dialects.lowbit.formats.scale import (
    SCALE_BITS,
    IntegerZero,
    ScaleTree,
    SuperScale,
    TensorScale,
)
from nybble.dialects.lowbit.formats.sections import Reader, Writer
from nybble.dialects.lowbit.formats.sparse_index import (
    places,
    read_csr,
    read_index,
    write_csr,
    write_index,
)
from nybble.dialects.lowbit.formats.structure import LowRank, Outliers, Smoothing
from nybble.dialects.lowbit.formats.trees import expand
from nybble.dialects.lowbit.formats.weight import Mask, Outlying, TreeParts, Weight

Shape = tuple[int, int]
Item = TypeVar("Item", bound=np.generic)
Part = TypeVar("Part")


def pack_stream(description: Description, weight: Weight) -> U8:
    """The stream u8 [n] of a weight [rows, cols]."""
    target = Writer()
    if 0 in weight.shape:
        return target.finish(*weight.shape)
    if isinstance(description.element, EntropyCoded):
        _write_lossless(weight.require_values(), target)
        return target.finish(*weight.shape)
    kept = _require_kept(description, weight)
    if description.sparsity is not None and kept is not None:
        write_index(description.sparsity, kept, target)
    if not description.is_plain:
        check_codes(description, weight.require_codes())
        _write_shared(description, weight, target)
    _write_values(description, weight, target)
    for correction in description.corrections:
        if isinstance(correction, Outliers):
            _write_outliers(correction, weight, target)
        elif isinstance(correction, LowRank):
            for factor in _present(weight, weight.low_rank):
                target.put(encode_floats(correction.dtype, np.ascontiguousarray(factor)))
        elif isinstance(correction, Smoothing):
            target.put(_present(weight, weight.smoothing).astype("<f4"))
    return target.finish(*weight.shape)


def unpack_stream(description: Description, raw: U8, cols: int) -> Weight:
    """The weight [rows, cols] of a stream u8 [n]; FormatError where it is not one."""
    if raw.dtype != np.uint8 or raw.ndim != 1:
        raise FormatError(
            f"{raw.dtype} array of shape {raw.shape} as '{description.spec}' of {cols} columns",
            accepted="uint8 of shape (n,), the stream that `pack` gives",
        )
    source = Reader(raw)
    if source.cols != cols:
        raise FormatError(f"a stream of {source.cols} columns", accepted=f"{cols} columns")
    description.check_shape((source.rows, cols))
    if not source.rows * cols:
        weight = empty_weight(description, source.rows, cols)
    elif isinstance(description.element, EntropyCoded):
        weight = plain_weight(description, _read_lossless(source))
    else:
        weight = in_basis(description, _read_weight(description, source))
        weight = _read_corrections(description, source, weight)
    source.finish()
    return weight


def _present(weight: Weight, part: Part | None) -> Part:
    if part is None:
        raise FormatError(f"a weight of '{weight.spec}' without a part of its format")
    return part


def _require_kept(description: Description, weight: Weight) -> Mask | None:
    return None if description.sparsity is None else _present(weight, weight.kept)


def _write_lossless(values: F32, target: Writer) -> None:
    patterns = encode_floats("bf16", values).view("<u2").reshape(values.shape)
    exponents, rest = entropy.split_bf16(patterns)
    coded = entropy.encode(exponents)
    for part in (coded.lengths, coded.starts.astype("<u4"), coded.bits, rest):
        target.put(part)


def _read_lossless(source: Reader) -> F32:
    lengths, starts = source.take(np.uint8, 256), source.take(np.uint32)
    bits, rest = source.take(np.uint8), source.take(np.uint8, source.rows * source.cols)
    coded = entropy.Coded(lengths, starts, bits)
    shape = (source.rows, source.cols)
    patterns = entropy.join_bf16(entropy.decode(coded, *shape), rest.reshape(shape))
    return decode_floats("bf16", patterns.astype("<u2").view(np.uint8))


def _write_shared(description: Description, weight: Weight, target: Writer) -> None:
    """Scales, zeros and selectors."""
    scale, zero = stored_scale(description, weight), stored_zero(description, weight)
    if description.scale is not None and scale is not None:
        _write_tree(description.scale, scale, target)
    if zero is not None and not isinstance(description.zero, IntegerZero | None):
        _write_tree(description.zero.tree, zero, target)
    zero_codes = stored_zero_codes(description, weight)
    if zero_codes is not None and isinstance(description.zero, IntegerZero):
        target.small(zero_codes, description.zero.width)
    if weight.selector is not None:
        target.small(weight.selector, (description.element.choices - 1).bit_length())


def _write_tree(tree: ScaleTree, stored: Tree, target: Writer) -> None:
    values, parts = stored
    if not isinstance(tree, SuperScale | TensorScale):
        target.put(encode_floats(tree.dtype, np.ascontiguousarray(values)))
        return
    if parts is None:
        raise FormatError("a two-level scale without its stored parts cannot be packed")
    target.put(encode_floats("f32" if isinstance(tree, TensorScale) else tree.dtype, parts.base))
    if isinstance(tree, TensorScale):
        target.put(parts.codes)
        return
    if tree.has_low:
        target.put(encode_floats(tree.dtype, _low(parts)))
    target.small(parts.codes, tree.width)


def _low(parts: TreeParts) -> F32:
    assert parts.low is not None
    return parts.low


def _write_values(description: Description, weight: Weight, target: Writer) -> None:
    """Codes or plain values of what is kept."""
    array = weight.require_values() if description.is_plain else weight.require_codes()
    if description.sparsity is not None and weight.kept is not None:
        array = array[places(description.sparsity, weight.kept)]
    if description.is_plain:
        flat = np.ascontiguousarray(array, dtype=np.float32).reshape(1, -1)
        target.put(encode_floats(description.element.spell, flat))
    else:
        target.small(array.astype(np.uint8), description.element.bits)


def _write_outliers(correction: Outliers, weight: Weight, target: Writer) -> None:
    outliers = _present(weight, weight.outliers)
    if correction.index == "csr":
        where = np.zeros(weight.shape, bool)
        where[outliers.rows, outliers.cols] = True
        flat = outliers.rows.astype(np.int64) * weight.shape[1] + outliers.cols
        if (np.diff(flat) <= 0).any():
            raise FormatError("outliers that are not in the order of rows and columns")
        write_csr(where, target)
    else:
        target.put(outliers.rows.astype("<i4"))
        target.put(outliers.cols.astype("<i4"))
    target.put(encode_floats(correction.dtype, outliers.values.reshape(1, -1)))


def _read_weight(description: Description, source: Reader) -> Weight:
    rows, cols = source.rows, source.cols
    sparsity = description.sparsity
    kept = None if sparsity is None else read_index(sparsity, source, rows, cols)
    where = None if sparsity is None or kept is None else places(sparsity, kept)
    count = rows * cols if where is None else len(where[0])
    if description.is_plain:
        flat = _floats(source, description.element.spell, count)
        return plain_weight(description, _scatter(flat, where, (rows, cols)), kept)
    stored = _read_shared(description, source)
    flat = source.small(count, description.element.bits).astype(np.uint8)
    weight = assemble(description, replace(stored, codes=_scatter(flat, where, (rows, cols))))
    if kept is None:
        return weight
    codes = np.where(kept, weight.require_codes(), pruned_codes(description, weight))
    return replace(weight, codes=codes, kept=kept)


def _scatter(
    flat: npt.NDArray[Item],
    where: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None,
    shape: Shape,
) -> npt.NDArray[Item]:
    if where is None:
        return flat.reshape(shape)
    result = np.zeros(shape, flat.dtype)
    result[where] = flat
    return result


def _floats(source: Reader, dtype: str, count: int) -> F32:
    size = 4 if dtype == "f32" else SCALE_BITS[dtype] // 8
    return decode_floats(dtype, source.take(np.uint8, count * size).reshape(1, -1)).reshape(-1)


def _read_shared(description: Description, source: Reader) -> Stored:
    """Scales, zeros and selectors; codes are still to come."""
    shape = description.scale_shape(source.rows, source.cols)
    unit, zero = description.element.unit, description.zero
    scale = _read_tree(description, description.scale, source, unit)
    minimum, zero_codes, selector = None, None, None
    if isinstance(zero, IntegerZero):
        zero_codes = source.small(shape[0] * shape[1], zero.width).astype(np.uint8).reshape(shape)
    elif zero is not None:
        minimum = _read_tree(description, zero.tree, source)
    choices = description.element.choices
    if choices > 1:
        width = (choices - 1).bit_length()
        selector = source.small(shape[0] * shape[1], width).astype(np.uint8).reshape(shape)
    return Stored(np.zeros((0, 0), np.uint8), scale, minimum, zero_codes, selector)


def _read_tree(
    description: Description, tree: ScaleTree | None, source: Reader, unit: float = 1.0
) -> Tree | None:
    if tree is None:
        return None
    shape = description.scale_shape(source.rows, source.cols)
    if isinstance(tree, TensorScale):
        base = source.take(np.float32, 1).reshape(1, 1) * np.float32(unit)
        parts = TreeParts(base, _bytes(source, shape))
        return expand(tree, parts), parts
    if not isinstance(tree, SuperScale):
        return _scaled_floats(source, tree.dtype, shape, unit), None
    supers = description.super_shape(source.rows, source.cols)
    base = _scaled_floats(source, tree.dtype, supers, unit)
    low = _scaled_floats(source, tree.dtype, supers, unit) if tree.has_low else None
    codes = source.small(shape[0] * shape[1], tree.width).astype(np.uint8).reshape(shape)
    tall = description.grouping.count if description.grouping.axis != "cols" else 1
    parts = TreeParts(base, codes, tall, low)
    return expand(tree, parts), parts


def _bytes(source: Reader, shape: Shape) -> U8:
    return source.take(np.uint8, shape[0] * shape[1]).reshape(shape)


def _scaled_floats(source: Reader, dtype: str, shape: Shape, unit: float) -> F32:
    raw = source.take(np.uint8, shape[0] * shape[1] * SCALE_BITS[dtype] // 8)
    return decode_floats(dtype, raw.reshape(1, -1), unit).reshape(shape)


def _read_corrections(description: Description, source: Reader, weight: Weight) -> Weight:
    rows, cols = weight.shape
    for correction in description.corrections:
        if isinstance(correction, Outliers):
            weight = replace(weight, outliers=_read_outliers(correction, source, weight.shape))
        elif isinstance(correction, LowRank):
            rank = min(correction.rank, rows, cols)
            left = _floats(source, correction.dtype, rows * rank).reshape(rows, rank)
            right = _floats(source, correction.dtype, rank * cols).reshape(rank, cols)
            weight = replace(weight, low_rank=(left, right))
        elif isinstance(correction, Smoothing):
            weight = replace(weight, smoothing=_floats(source, "f32", cols))
    return weight


def _read_outliers(correction: Outliers, source: Reader, shape: Shape) -> Outlying:
    if correction.index == "csr":
        row, col = np.nonzero(read_csr(source, *shape))
    else:
        row, col = source.take(np.int32), source.take(np.int32)
        inside = len(row) == len(col) and (row >= 0).all() and (col >= 0).all()
        if not inside or (row >= shape[0]).any() or (col >= shape[1]).any():
            raise FormatError("places of outliers", accepted=f"pairs within {shape}")
    values = _floats(source, correction.dtype, len(row))
    return Outlying(row.astype(np.int32), col.astype(np.int32), values)
