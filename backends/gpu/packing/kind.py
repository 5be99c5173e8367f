"""What a kernel of a GPU knows of its weights: `W = S * T(c) + Z`, and outliers, as data.

T is a line, a small float or a table of 16 numbers; S and Z are floats per group, held in the type
that has them exactly. Lossless bf16 (DFloat11) is a low byte and an index into a table of 16 high
bytes for each tile of rows, without S and Z; what such tables have not are outliers. What a format
has beyond that is refused, with the reason.
"""

from dataclasses import dataclass, field, replace

from nybble.backends.gpu.packing.stream import ZeroKind
from nybble.dialects.lowbit.formats import Format, FormatError
from nybble.dialects.lowbit.formats.affine import affine
from nybble.dialects.lowbit.formats.element import Element, EntropyCoded
from nybble.dialects.lowbit.formats.scale import (
    FloatScale,
    IntegerZero,
    ScaledZero,
    ScaleTree,
    Zero,
)
from nybble.dialects.lowbit.formats.structure import Outliers
from nybble.dialects.lowbit.formats.table_element import Codebook, SmallFloat

_HOLDS = {"f32": "f32", "f16": "f16", "bf16": "bf16", "e8m0": "bf16", "e4m3": "f16"}
"""The type that holds a stored scale exactly."""
TABLE_BITS = 4
SPLIT_BITS = 12
SPLIT_OUTLIERS = 2
"""Of 1000 lossless weights, those whose high byte may be in no table."""


@dataclass(frozen=True)
class Line:
    """T(c) = step * c + first, with a step that is a power of two."""

    step: int
    first: int


@dataclass(frozen=True)
class Small:
    """unit * T(c) is a float of a sign, `exponent` and `mantissa` bits.

    has_nan: whether the largest code is no number although its exponent is one of numbers.
    integers: T(c) of each code of 4 bits, all integers; else none.
    """

    exponent: int
    mantissa: int
    unit: float
    has_nan: bool
    integers: tuple[float, ...] = field(default=(), repr=False)

    @property
    def bias(self) -> int:
        """What the exponent field of 1.0 is."""
        return 2 ** (self.exponent - 1) - 1


@dataclass(frozen=True)
class Table:
    """T(c) = values[c], 16 of them, each rounded to the activations' type."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class Split:
    """T(c) is the bf16 of the low byte `c >> 4`, and the high byte that is entry `c & 15` of the
    table of its tile of rows."""


Meaning = Line | Small | Table | Split


@dataclass(frozen=True)
class WeightKind:
    """Weights as codes of `bits` bits, whose groups of `group` columns have a scale.

    scale: the type of scales and zeros; empty where there are none. zero: see `stream.ZeroKind`.
    unit: what scales were multiplied by, a power of two, so that the stored ones are exact in their
    type. outliers: of 1000 weights, those that may also have an exact value that is added.
    """

    bits: int
    meaning: Meaning
    group: int
    scale: str
    zero: ZeroKind = ""
    unit: float = 1.0
    outliers: int = 0


def weight_kind(description: Format, cols: int) -> WeightKind:
    """What kernels see of a format in rows of `cols` weights; FormatError for what they cannot."""
    spec, element = description.spec, description.element
    is_split = isinstance(element, EntropyCoded)
    if not is_split and (not description.has_codes or description.scale is None):
        raise FormatError(f"'{spec}' on a GPU: it has no code per weight")
    added = [one for one in description.corrections if isinstance(one, Outliers)]
    fixes = [one.spell for one in description.corrections if one not in added]
    fixes += [description.sparsity.spell] if description.sparsity is not None else []
    if fixes:
        raise FormatError(f"'{spec}' on a GPU: {', '.join(fixes)} has no kernel there")
    if description.grouping.axis == "rows":
        raise FormatError(f"'{spec}' on a GPU: groups across rows have no kernel there")
    outliers = sum(one.permille for one in added)
    if is_split:
        return WeightKind(SPLIT_BITS, Split(), cols, "", outliers=outliers + SPLIT_OUTLIERS)
    assert description.scale is not None
    zero, zero_holds = _zero(description.zero)
    holds = {_holds(description.scale), *zero_holds}
    scale = holds.pop() if len(holds) == 1 else "f32"
    group = description.group_size(cols)
    meaning = _meaning(element, spec)
    return WeightKind(element.bits, meaning, group, scale, zero, element.unit, outliers)


def of_integers(kind: WeightKind) -> WeightKind:
    """The kind as products of integers see it: small floats of 4 bits are a table of integers."""
    if isinstance(kind.meaning, Small) and kind.meaning.integers:
        return replace(kind, meaning=Table(kind.meaning.integers))
    return kind


def _meaning(element: Element, spec: str) -> Meaning:
    line = affine(element)
    if line is not None and line.step in (1, 2):
        return Line(line.step, line.first)
    if isinstance(element, SmallFloat):
        has_nan = element.exponent == 4
        integers = tuple(map(float, element.table)) if element.bits == TABLE_BITS else ()
        return Small(element.exponent, element.mantissa, element.unit, has_nan, integers)
    if isinstance(element, Codebook) and element.bits == TABLE_BITS:
        return Table(element.values)
    raise FormatError(f"'{spec}' on a GPU: codes of {element.spell[:40]} have no kernel there")


def _holds(tree: ScaleTree) -> str:
    return _HOLDS[tree.dtype] if isinstance(tree, FloatScale) else "f32"


def _zero(zero: Zero | None) -> tuple[ZeroKind, set[str]]:
    """The kind of a zero, and the type that it demands of scales and zeros."""
    if zero is None:
        return "", set()
    if isinstance(zero, IntegerZero):
        return "points", set()
    if isinstance(zero, ScaledZero):
        return "minimum", {"f32"}
    return "minimum", {_holds(zero.tree)}
