"""What a kernel of a GPU knows of its weights: `W = S * T(c) + Z`, as data.

T is a line, a small float or a table of 16 numbers; S and Z are floats per group, held in the type
that has them exactly. What a format has beyond that is refused, with the reason.
"""

from dataclasses import dataclass

from nybble.backends.gpu.packing.stream import ZeroKind
from nybble.dialects.lowbit.formats import Format, FormatError
from nybble.dialects.lowbit.formats.affine import affine
from nybble.dialects.lowbit.formats.element import Element
from nybble.dialects.lowbit.formats.scale import (
    IntegerZero,
    ScaleTree,
    StoredMin,
    SuperScale,
    TensorScale,
    Zero,
)

_HOLDS = {"f32": "f32", "f16": "f16", "bf16": "bf16", "e8m0": "bf16", "e4m3": "f16"}
"""The type that holds a stored scale exactly."""


@dataclass(frozen=True)
class Line:
    """T(c) = step * c + first, with a step that is a power of two."""

    step: int
    first: int


Meaning = Line
"""What a code can mean."""


@dataclass(frozen=True)
class WeightKind:
    """Weights as codes of `bits` bits, whose groups of `group` columns have a scale.

    scale: the type of scales and zeros. zero: see `stream.ZeroKind`.
    """

    bits: int
    meaning: Meaning
    group: int
    scale: str
    zero: ZeroKind = ""


def weight_kind(description: Format, cols: int) -> WeightKind:
    """What kernels see of a format in rows of `cols` weights; FormatError for what they cannot."""
    spec = description.spec
    if not description.has_codes:
        raise FormatError(
            f"a product of '{spec}' on a GPU", accepted="formats with a code per weight"
        )
    if description.corrections or description.sparsity is not None:
        extra = [one.spell for one in description.corrections]
        extra += [description.sparsity.spell] if description.sparsity is not None else []
        raise FormatError(f"'{spec}' on a GPU: {', '.join(extra)} has no kernel there")
    if description.grouping.axis != "cols":
        raise FormatError(f"'{spec}' on a GPU: groups across rows have no kernel there")
    assert description.scale is not None
    meaning = _meaning(description.element, spec)
    zero, zero_holds = _zero(description.zero, spec)
    holds = {_holds(description.scale, spec), *zero_holds}
    scale = holds.pop() if len(holds) == 1 else "f32"
    group = description.group_size(cols)
    return WeightKind(description.element.bits, meaning, group, scale, zero)


def _meaning(element: Element, spec: str) -> Meaning:
    line = affine(element)
    if line is not None and line.step in (1, 2):
        return Line(line.step, line.first)
    raise FormatError(f"'{spec}' on a GPU: codes of {element.spell} have no kernel there")


def _holds(tree: ScaleTree, spec: str) -> str:
    if isinstance(tree, TensorScale):
        raise FormatError(f"'{spec}' on a GPU: a scale of the whole matrix has no kernel there")
    return "f32" if isinstance(tree, SuperScale) else _HOLDS[tree.dtype]


def _zero(zero: Zero | None, spec: str) -> tuple[ZeroKind, set[str]]:
    """The kind of a zero, and the type that it demands of scales and zeros."""
    if zero is None:
        return "", set()
    if isinstance(zero, IntegerZero):
        return "points", set()
    if isinstance(zero, StoredMin):
        return "minimum", {_holds(zero.tree, spec)}
    raise FormatError(f"'{spec}' on a GPU: zeros {zero.spell} have no kernel there")
