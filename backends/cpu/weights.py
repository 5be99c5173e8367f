"""How a weight of a number format is held for the matmul kernels, and the packing that does it.

Codes stay codes where a register can tell what they mean: integers, tables of at most 16 values,
small floats, and the vector codebooks, whose weights are one of at most 16 whole numbers each.
Tables of more values become 8-bit integers where all of them are such. What a sparse format leaves
out is held as codes that mean zero; outliers and low-rank factors are kept beside (`additions`).
What is left is decoded and held as f32: rotated and smoothed weights, groups across rows, other
tables, sparse formats in which no code means zero. DFloat11 is held in 12 bits (`split_floats`).
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.additions import NOTHING, Added, pack_added
from nybble.backends.cpu.float_bytes import FloatName
from nybble.backends.cpu.kept_codes import PATTERNS
from nybble.backends.cpu.kernels.matmul.codes import (
    MOST_VALUES,
    Codes,
    Dense,
    Kind,
    SmallFloat,
    Split,
    Table,
    affine,
)
from nybble.backends.cpu.packing import pack, pack_dense
from nybble.backends.cpu.split_floats import STEP, SplitLayout, pack_split
from nybble.backends.cpu.tile_layout import LANES, RUN, DenseLayout, LayoutError, TileLayout, Tree
from nybble.dialects.lowbit.formats import Format, FormatError, Weight
from nybble.dialects.lowbit.formats import element as elements
from nybble.dialects.lowbit.formats.grid_blocks import GRID_BLOCKS
from nybble.dialects.lowbit.formats.scale import (
    FloatScale,
    IntegerZero,
    ScaledZero,
    StoredMin,
    SuperScale,
)
from nybble.dialects.lowbit.formats.structure import LowRank, NOfM, Outliers, Rotation, Smoothing
from nybble.dialects.lowbit.formats.table_element import BitMod, Grid
from nybble.dialects.lowbit.formats.table_element import SmallFloat as SmallFloatElement

Bytes = npt.NDArray[np.uint8]
FLOATS: dict[str, FloatName] = {"f32": "f32", "f16": "f16", "bf16": "bf16"}
_SCALES: dict[str, FloatName] = {**FLOATS, "e8m0": "bf16", "e4m3": "bf16"}
"""The type that holds a stored scale, the element's unit included, exactly."""
_DECODED = Dense("f32")
SPLIT_OUTLIERS = Added(permille=2, least=16)
"""How many weights of lossless bf16 may have a high byte outside of their tile's table.

Measured: 0.2 of 1000 of normally distributed weights, 0.9 of Student's t of 3 degrees of freedom,
0.2 of SmolLM2's on average and 0.6 at most (first keys).
"""


def weight_kind(description: Format, cols: int) -> Kind:
    """What the kernels see of a format in rows of `cols` weights.

    Raises FormatError for one that they cannot hold.
    """
    element = description.element
    if isinstance(element, elements.TwoDigits):
        raise FormatError(f"'{description.spec}' is a format of activations, not of weights")
    if any(isinstance(one, Rotation | Smoothing) for one in description.corrections):
        return _DECODED
    if isinstance(element, elements.PlainFloat):
        return Dense(FLOATS[element.name])
    if isinstance(element, elements.EntropyCoded):
        return Split() if cols % STEP == 0 else Dense("bf16")
    if description.grouping.axis == "rows" or not _is_zero_a_code(description):
        return _DECODED
    kind = _codes(description, description.group_size(cols))
    return _keeping(description, kind, cols) if isinstance(kind, Codes) else kind


def _keeping(description: Format, kind: Codes, cols: int) -> Codes:
    """Codes of what 1:4 and 2:4 keep alone, where that takes less and all else means zero."""
    sparsity = description.sparsity
    if not isinstance(sparsity, NOfM) or sparsity.of != RUN or sparsity.keep not in PATTERNS:
        return kind
    if kind.has_zero or kind.has_choice:
        return kind
    kept = replace(kind, keep=sparsity.keep)
    try:
        less = kept.layout(1, cols).size < kind.layout(1, cols).size
    except LayoutError:
        return kind
    return kept if less else kind


def _is_zero_a_code(description: Format) -> bool:
    """Whether what a sparse format leaves out can be codes that mean zero, if it is one."""
    element, zero = description.element, description.zero
    if description.sparsity is None:
        return True
    if isinstance(zero, IntegerZero):
        return zero.width <= element.bits
    if zero is not None or not element.has_codes:
        return False
    table = element.plain_table
    return bool((table == 0).any()) if table is not None and table.ndim == 1 else True


def added_of(description: Format, cols: int) -> Added:
    """What kernels add to the products of a format's codes."""
    kind = weight_kind(description, cols)
    if kind == _DECODED:
        return NOTHING
    if isinstance(kind, Split):
        return SPLIT_OUTLIERS
    parts = description.corrections
    return Added(
        sum(one.permille for one in parts if isinstance(one, Outliers)),
        sum(one.rank for one in parts if isinstance(one, LowRank)),
    )


def _codes(description: Format, group: int) -> Codes | Dense:
    """Codes with the right T; decoded floats where T is none that a kernel knows."""
    element = description.element
    codes = _with_scales(Codes(element.bits, group, element.zero_point), description)
    if isinstance(element, Grid):
        values = _padded(tuple(map(float, GRID_BLOCKS[element.name].values)))
        tree = Tree(description.grouping.count)
        return _with_values(replace(codes, scale="f32", tree=tree), values)
    if isinstance(element, BitMod):
        return _with_choices(codes, element)
    if element.table is None:
        return codes
    if isinstance(element, SmallFloatElement) and element.bits > 4 and element.unit == 1:
        return replace(codes, table=SmallFloat(element.exponent, element.mantissa))
    table = element.plain_table
    assert table is not None
    return _with_values(codes, tuple(float(value * _unit(description)) for value in table))


def _padded(values: tuple[float, ...]) -> tuple[float, ...]:
    """As many values as codes: the last one again and again."""
    count = 1 << (len(values) - 1).bit_length()
    return values + values[-1:] * (count - len(values))


def _with_values(codes: Codes, values: tuple[float, ...]) -> Codes | Dense:
    bits = (len(values) - 1).bit_length()
    line = affine(values)
    if line is not None:
        return replace(codes, bits=bits, step=line[0], zero_point=line[1])
    if len(values) <= MOST_VALUES:
        return replace(codes, bits=bits, zero_point=0, table=Table(values))
    least, most = min(values), max(values)
    if not all(value.is_integer() for value in values) or most - least > 255:
        return _DECODED
    return replace(codes, bits=int(most - least).bit_length(), zero_point=-int(least))


def _with_choices(codes: Codes, element: BitMod) -> Codes:
    values = tuple(map(float, element.table[0]))
    if element.choices == 1:
        return replace(codes, table=Table(values))
    special = len(values) // 2
    specials = tuple(float(row[special]) for row in element.table)
    return replace(codes, table=Table(values, specials, special))


def _with_scales(codes: Codes, description: Format) -> Codes:
    """How scales and zeros are held: as stored where kernels read that, else as f32."""
    scale, zero = description.scale, description.zero
    codes = replace(codes, integer_zero=isinstance(zero, IntegerZero), has_zero=zero is not None)
    if _is_by_subtile(description):
        assert isinstance(scale, SuperScale)
        return replace(codes, scale=FLOATS[scale.dtype], by_subtile=True)
    trees = [scale, *([zero.tree] if isinstance(zero, StoredMin) else [])]
    if zero is not None and not isinstance(zero, IntegerZero | StoredMin):
        return replace(codes, scale="f32")
    if all(isinstance(tree, FloatScale) for tree in trees):
        names = {_SCALES[tree.dtype] for tree in trees if tree is not None}
        return replace(codes, scale=names.pop() if len(names) == 1 else "f32")
    if not all(_is_plain_tree(tree) for tree in trees) or description.grouping.axis != "cols":
        return replace(codes, scale="f32")
    bases = {tree.dtype for tree in trees if isinstance(tree, SuperScale)}
    exact = len(bases) == 1 and bases <= {"f16", "bf16"} and description.element.unit == 1
    offsets = [tree.offset for tree in trees if isinstance(tree, SuperScale)]
    return replace(
        codes,
        scale=FLOATS[bases.pop()] if exact else "f32",
        tree=Tree(description.grouping.count, *offsets),
    )


def _is_by_subtile(description: Format) -> bool:
    """Whether 16 rows share the floats of scales, as SpQR has it: `S = base * c + low`."""
    grouping, zero = description.grouping, description.zero
    if (grouping.axis, grouping.count) != ("tile", LANES) or description.element.unit != 1:
        return False
    if zero is not None and not isinstance(zero, ScaledZero):
        return False
    trees = [description.scale, *([] if zero is None else [zero.tree])]
    found = [tree for tree in trees if isinstance(tree, SuperScale)]
    fits = all(tree.has_low and tree.width <= 4 for tree in found)
    return fits and len(found) == len(trees) and len({tree.dtype for tree in found}) == 1


def _is_plain_tree(tree: object) -> bool:
    return isinstance(tree, SuperScale) and not tree.has_low


def _unit(description: Format) -> float:
    """The part of the element's unit that T keeps: f16 scales are held as they are stored."""
    return description.element.unit if description.scale == FloatScale("f16") else 1.0


def digits_of(description: Format) -> int:
    """How many 8-bit digits an activation of a format has; raises FormatError for other formats."""
    element = description.element
    if isinstance(element, elements.TwoDigits):
        return 2
    if isinstance(element, elements.Uniform) and element.bits == 8 and element.narrow:
        return 1
    raise FormatError(
        f"the CPU backend does not take activations of format '{description.spec}'",
        accepted="a8gN, a16gN; a weight needs a compute layout (pass assign-layout)",
    )


def layout_of(
    description: Format, shape: tuple[int, int]
) -> TileLayout | DenseLayout | SplitLayout:
    """The compute layout of a weight [rows, cols]; raises FormatError or LayoutError."""
    return weight_kind(description, shape[1]).layout(*shape)


def packed_size(description: Format, shape: tuple[int, int]) -> int:
    """Bytes of a packed weight [rows, cols]; raises what `layout_of` raises."""
    added = added_of(description, shape[1]).layout(*shape)
    return layout_of(description, shape).size + added.size


def pack_weight(description: Format, weight: Weight) -> Bytes:
    """A weight of a format in its compute layout, then what is added to it."""
    rows, cols = weight.shape
    kind = weight_kind(description, cols)
    layout = kind.layout(rows, cols)
    added = added_of(description, cols).layout(rows, cols)
    if isinstance(layout, SplitLayout):
        data, left = pack_split(weight.dequantize(), layout)
        if len(left.values) > added.outliers:
            raise LayoutError(
                f"{len(left.values)} of {rows} x {cols} lossless weights have a high byte outside "
                "of the 15 commonest of their 64 rows",
                accepted=f"at most {added.outliers}; format 'bf16' holds any",
            )
        weight = replace(weight, outliers=left)
    elif isinstance(layout, DenseLayout):
        bare = replace(weight, outliers=None, low_rank=None) if added.size else weight
        data = pack_dense(bare.dequantize(), layout)
    else:
        assert isinstance(kind, Codes)
        data = pack(_as_held(description, kind, weight), layout)
    return np.concatenate([data, pack_added(weight, added)]) if added.size else data


def _as_held(description: Format, kind: Codes, weight: Weight) -> Weight:
    """The weight in the codes and scales that a kind holds."""
    unit = np.float32(_unit(description))
    if unit != 1:
        weight = replace(weight, scale=weight.scale / unit)
    zero, parts = description.zero, weight.zero_parts
    if isinstance(zero, StoredMin) and zero.negated and parts is not None:
        weight = replace(weight, zero_parts=replace(parts, base=-parts.base))
    if weight.table is None or kind.table is not None or kind.step != 1:
        return weight
    numbers = (weight.table + np.float32(kind.zero_point)).astype(np.uint8)
    return replace(weight, codes=numbers[weight.require_codes()], table=None)
