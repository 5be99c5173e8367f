"""Storage layouts: where a block of bytes keeps codes, scales and zeros.

A layout is data that one codec reads and writes. The native layout of a format is derived from its
description: per (super-)group the scale, the sub-scales, the zero, then the codes, all low bits
first. Blocks of ggml types are in `ggml_layouts`.
"""

from dataclasses import dataclass
from typing import Protocol

from nybble.dialects.lowbit.formats.arrays import U8
from nybble.dialects.lowbit.formats.bits import BitField, dense
from nybble.dialects.lowbit.formats.scale import (
    SCALE_BITS,
    IntegerZero,
    ScaleTree,
    SuperScale,
    Zero,
)


class Packing(Protocol):
    """How small integers lie in fields."""

    @property
    def count(self) -> int:
        """Integers per block."""
        ...

    def read(self, fields: dict[str, U8]) -> U8:
        """Fields u8 [blocks, bytes] to integers u8 [blocks, count]."""
        ...

    def write(self, integers: U8, fields: dict[str, U8]) -> None:
        """The inverse, into zeroed fields."""
        ...


@dataclass(frozen=True)
class TreeFields:
    """Where a scale tree lies: the field of stored floats and the packed integers below them."""

    base: str | None
    codes: BitField | None = None


@dataclass(frozen=True)
class Layout:
    """One block: `weights` weights in the bytes of `fields` (name, bytes), in this order."""

    weights: int
    fields: tuple[tuple[str, int], ...]
    codes: Packing
    scale: TreeFields | None = None
    zero: TreeFields | None = None
    selector: BitField | None = None

    @property
    def bytes(self) -> int:
        """Bytes of one block."""
        return sum(size for _, size in self.fields)

    def split(self, blocks: U8) -> dict[str, U8]:
        """u8 [blocks, bytes] to a view per field."""
        views: dict[str, U8] = {}
        start = 0
        for name, size in self.fields:
            views[name] = blocks[:, start : start + size]
            start += size
        return views


@dataclass(frozen=True)
class LayoutRequest:
    """What a native layout is derived from; group in weights, count in groups per block."""

    code_bits: int
    group: int
    count: int
    scale: ScaleTree | None
    zero: Zero | None
    choices: int


def _tree_fields(
    name: str, tree: ScaleTree | None, groups: int
) -> tuple[TreeFields | None, dict[str, int]]:
    if tree is None:
        return None, {}
    if not isinstance(tree, SuperScale):
        return TreeFields(name), {name: SCALE_BITS[tree.dtype] // 8 * groups}
    codes, sizes = dense(f"{name}_sub", groups, tree.width)
    return TreeFields(name, codes), {name: SCALE_BITS[tree.base.dtype] // 8, **sizes}


def native(request: LayoutRequest) -> Layout:
    """The derived layout; a block is a super-group (or a group)."""
    weights = request.group * request.count
    scale, sizes = _tree_fields("scale", request.scale, request.count)
    zero: TreeFields | None = None
    if isinstance(request.zero, IntegerZero):
        packed, more = dense("zero", request.count, request.zero.width)
        zero = TreeFields(None, packed)
        sizes |= more
    elif request.zero is not None:
        zero, more = _tree_fields("zero", request.zero.tree, request.count)
        sizes |= more
    selector: BitField | None = None
    if request.choices > 1:
        selector, more = dense("selector", request.count, (request.choices - 1).bit_length())
        sizes |= more
    codes, more = dense("codes", weights, request.code_bits)
    sizes |= more
    return Layout(weights, tuple(sizes.items()), codes, scale, zero, selector)
