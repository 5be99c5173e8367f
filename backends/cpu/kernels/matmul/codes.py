"""What a kernel knows of its weights: codes and their meaning T(c), or plain floats, as data.

`W = S * T(c) + Z` per group of columns. T is `step * c - zero_point`, a table of at most 16 values,
or a small float. `Codes.integers` is the same T as an integer dot product takes it.
"""

from dataclasses import dataclass
from functools import cached_property

from nybble.backends.cpu.float_bytes import FloatName
from nybble.backends.cpu.split_floats import STEP, SplitLayout
from nybble.backends.cpu.tile_layout import DenseLayout, TileLayout, Tree

MOST_VALUES = 16
"""Values of a table that one instruction looks up in registers."""
_UNITS = tuple(2.0**-k for k in range(8))


@dataclass(frozen=True)
class Table:
    """T(c) = values[c], at most 16 of them.

    specials: if any, what a group chooses from for the code `special`.
    """

    values: tuple[float, ...]
    specials: tuple[float, ...] = ()
    special: int = 0

    def __post_init__(self) -> None:
        assert len(self.values) <= MOST_VALUES
        assert self.special < len(self.values)

    @property
    def every(self) -> tuple[float, ...]:
        """Every number that T can be."""
        kept = self.values
        if self.specials:
            kept = kept[: self.special] + kept[self.special + 1 :]
        return kept + self.specials


@dataclass(frozen=True)
class SmallFloat:
    """T(c) is a float of a sign, `exponent` and `mantissa` bits, as in `formats.table_element`."""

    exponent: int
    mantissa: int

    @property
    def bias(self) -> int:
        """What the exponent field of 1.0 is."""
        return 2 ** (self.exponent - 1) - 1


@dataclass(frozen=True)
class Integers:
    """T(c) = unit * (step * l - zero_point) with a level l of 8 bits.

    levels: l by code, empty where the level is the code. specials: the level by choice.
    """

    zero_point: int
    step: int = 1
    unit: float = 1.0
    levels: tuple[int, ...] = ()
    specials: tuple[int, ...] = ()

    def steepest(self, bits: int) -> int:
        """The largest magnitude of `step * l` and of `zero_point`, for codes of `bits` bits."""
        level = max(self.levels + self.specials, default=2**bits - 1)
        return max(self.step * level, abs(self.zero_point))


@dataclass(frozen=True)
class Codes:
    """Weights as codes: the fields of TileLayout, and T.

    T(c) = step * c - zero_point where `table` is None; `step` is 1 or 2.
    """

    bits: int
    group: int
    zero_point: int = 0
    has_zero: bool = False
    scale: FloatName = "f16"
    step: int = 1
    table: Table | SmallFloat | None = None
    tree: Tree | None = None
    integer_zero: bool = False
    by_subtile: bool = False
    keep: int = 0

    def __post_init__(self) -> None:
        assert self.step in (1, 2)
        assert self.has_zero or not self.integer_zero

    @property
    def has_choice(self) -> bool:
        """Whether a group chooses a special value."""
        return isinstance(self.table, Table) and bool(self.table.specials)

    def layout(self, rows: int, cols: int) -> TileLayout:
        """The layout of a part."""
        return TileLayout(
            rows,
            cols,
            self.bits,
            self.group,
            self.has_zero,
            self.scale,
            self.has_choice,
            self.tree,
            self.integer_zero,
            self.by_subtile,
            self.keep,
        )

    @property
    def zero_code(self) -> int:
        """The code c with T(c) = 0, where there is one; else 0."""
        if isinstance(self.table, Table):
            return self.table.values.index(0.0) if 0.0 in self.table.values else 0
        return self.zero_point // self.step if self.table is None else 0

    @cached_property
    def integers(self) -> Integers | None:
        """T for an integer dot product; None where its values are no integers of 8 bits."""
        if self.table is None:
            return Integers(self.zero_point, self.step)
        return _integers(self.table) if isinstance(self.table, Table) else None

    def values(self) -> tuple[float, ...]:
        """T by code, of at most 4 bits, without special values."""
        if isinstance(self.table, Table):
            return self.table.values
        return tuple(float(self.step * c - self.zero_point) for c in range(2**self.bits))


@dataclass(frozen=True)
class Dense:
    """Weights as plain floats."""

    dtype: FloatName

    def layout(self, rows: int, cols: int) -> DenseLayout:
        """The layout of a part."""
        return DenseLayout(rows, cols, self.dtype)


@dataclass(frozen=True)
class Split:
    """Weights as bf16, in 12 bits where these tell which; the others are added."""

    group: int = STEP

    def layout(self, rows: int, cols: int) -> SplitLayout:
        """The layout of a part."""
        return SplitLayout(rows, cols)


Kind = Codes | Dense | Split
"""What a kernel may see of its weights."""


def _integers(table: Table) -> Integers | None:
    """The largest unit 2**-k of which all values are multiples, if they span 8 bits of it."""
    for unit in _UNITS:
        if all((value / unit).is_integer() for value in table.every):
            least = int(min(table.every) / unit)
            if int(max(table.every) / unit) - least > 255:
                return None
            levels = tuple(max(int(value / unit) - least, 0) for value in table.values)
            specials = tuple(int(value / unit) - least for value in table.specials)
            return Integers(-least, unit=unit, levels=levels, specials=specials)
    return None


def affine(values: tuple[float, ...]) -> tuple[int, int] | None:
    """(step, zero_point) if values[c] = step * c - zero_point with a step of 1 or 2."""
    first, step = values[0], values[1] - values[0]
    whole = first.is_integer() and step in (1.0, 2.0)
    if whole and all(value == first + step * c for c, value in enumerate(values)):
        return int(step), -int(first)
    return None
