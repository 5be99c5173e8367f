"""Which parts of a number format go together, and which fit the blocks of a named store."""

from dataclasses import dataclass

from nybble.dialects.lowbit.formats.bits import BitField
from nybble.dialects.lowbit.formats.element import (
    Element,
    EntropyCoded,
    PlainFloat,
    Ternary,
    Uniform,
)
from nybble.dialects.lowbit.formats.errors import FormatError
from nybble.dialects.lowbit.formats.ggml_layouts import LAYOUTS, Trits
from nybble.dialects.lowbit.formats.grid_blocks import GRID_BLOCKS
from nybble.dialects.lowbit.formats.layout import Layout, TreeFields
from nybble.dialects.lowbit.formats.scale import (
    SCALE_BITS,
    FloatScale,
    IntegerZero,
    ScaledZero,
    ScaleTree,
    StoredMin,
    SuperScale,
    Zero,
)
from nybble.dialects.lowbit.formats.structure import (
    WHOLE_ROWS,
    Correction,
    Grouping,
    Sparsity,
)
from nybble.dialects.lowbit.formats.table_element import Grid

NATIVE = "native"
STORED_BLOCKS = {name: (layout.weights, layout.bytes) for name, layout in LAYOUTS.items()} | {
    name: (block.weights, block.bytes) for name, block in GRID_BLOCKS.items()
}


def zero_trees(zero: Zero | None) -> tuple[ScaleTree, ...]:
    """The scale tree of a zero, if it has one."""
    return (zero.tree,) if isinstance(zero, StoredMin | ScaledZero) else ()


@dataclass(frozen=True)
class Parts:
    """The parts of a format that must go together."""

    element: Element
    grouping: Grouping
    scale: ScaleTree | None
    zero: Zero | None
    sparsity: Sparsity | None = None
    corrections: tuple[Correction, ...] = ()

    @property
    def trees(self) -> list[ScaleTree]:
        """Every scale tree: of the scale and of a stored zero."""
        return [*([] if self.scale is None else [self.scale]), *zero_trees(self.zero)]


def check_parts(parts: Parts, spelling: str) -> None:
    """Raise FormatError if the parts of the format spelled `spelling` contradict each other."""
    if isinstance(parts.element, PlainFloat | EntropyCoded) and (
        parts.trees or parts.zero is not None or parts.grouping != WHOLE_ROWS
    ):
        raise FormatError(f"'{spelling}': plain floats have no groups, scale or zero")
    _check_additions(parts, spelling)
    if isinstance(parts.zero, IntegerZero | ScaledZero):
        _check_zero_point(parts, spelling)
    deep = any(isinstance(tree, SuperScale) for tree in parts.trees)
    if parts.grouping.size is None and deep:
        raise FormatError(f"'{spelling}': a sub-scale needs groups, not whole rows")
    for tree in zero_trees(parts.zero):
        if tree.dtype in ("e8m0", "e4m3"):
            raise FormatError(
                f"'{spelling}': a minimum of type {tree.dtype}",
                accepted="f32, f16, bf16, since it may be negative",
            )


def _check_additions(parts: Parts, spelling: str) -> None:
    kinds = [type(one) for one in parts.corrections]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise FormatError(f"'{spelling}': two corrections of one kind ({kind.__name__})")
    if isinstance(parts.element, EntropyCoded) and (parts.sparsity or parts.corrections):
        raise FormatError(f"'{spelling}': lossless weights have no sparsity or corrections")
    if parts.element.choices > 1 and parts.zero is not None:
        raise FormatError(f"'{spelling}': a zero beside tables that each group chooses from")
    values_only = not parts.element.has_codes and not isinstance(parts.element, PlainFloat)
    if values_only and (parts.sparsity or parts.corrections):
        raise FormatError(f"'{spelling}': weights without codes have no sparsity or corrections")


def _check_zero_point(parts: Parts, spelling: str) -> None:
    element = parts.element
    unsigned = isinstance(element, Uniform) and element.offset == 0
    if not unsigned or parts.scale is None:
        raise FormatError(
            f"'{spelling}': a stored zero point",
            accepted="it with an unsigned uniform element and a scale",
        )


def check_store(parts: Parts, store: str, spelling: str) -> None:
    """Raise FormatError unless the blocks of `store` have a place for each part, and no other."""
    if store not in STORED_BLOCKS:
        raise FormatError(f"unknown store '{store}'", accepted=", ".join((NATIVE, *STORED_BLOCKS)))
    weights, _ = STORED_BLOCKS[store]
    size = parts.grouping.size
    fits = size is not None and size * parts.grouping.count == weights
    if store in GRID_BLOCKS:
        fits = fits and parts.element == Grid(store) and parts.zero is None
    else:
        fits = fits and _fits_layout(parts, LAYOUTS[store])
    if not fits:
        raise FormatError(f"'{spelling}' does not fit the blocks of store '{store}'")


def _fits_layout(parts: Parts, layout: Layout) -> bool:
    if isinstance(parts.zero, IntegerZero | ScaledZero) or parts.element.choices > 1:
        return False
    if isinstance(layout.codes, Trits):
        fits = isinstance(parts.element, Ternary)
    else:
        assert isinstance(layout.codes, BitField)
        fits = layout.codes.width == parts.element.bits
    tree = next(iter(zero_trees(parts.zero)), None)
    sizes = dict(layout.fields)
    groups = parts.grouping.count
    return (
        fits
        and _fits_tree(parts.scale, layout.scale, groups, sizes)
        and _fits_tree(tree, layout.zero, groups, sizes)
    )


def _fits_tree(
    tree: ScaleTree | None, where: TreeFields | None, groups: int, sizes: dict[str, int]
) -> bool:
    if tree is None or where is None or where.base is None:
        return tree is None and where is None
    if not isinstance(tree, SuperScale):
        return (
            isinstance(tree, FloatScale)
            and where.codes is None
            and sizes[where.base] * 8 == SCALE_BITS[tree.dtype] * groups
        )
    return (
        where.codes is not None
        and (where.codes.count, where.codes.width) == (groups, tree.width)
        and sizes[where.base] * 8 == SCALE_BITS[tree.dtype]
    )
