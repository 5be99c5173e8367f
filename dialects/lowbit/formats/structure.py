"""Grouping, sparsity and corrections of a number format."""

from dataclasses import dataclass

from nybble.dialects.lowbit.formats.errors import FormatError

AXES = ("cols", "rows", "tile")
FACTOR_TYPES = ("f32", "f16", "bf16")


@dataclass(frozen=True)
class Grouping:
    """Which weights share a scale.

    size: weights per group; None is the whole row (or column).
    count: groups per super-group; 1 without one.
    axis: "cols" has groups and super-groups along the contracted dimension; "rows" has both across
    rows (KIVI's keys); "tile" has groups along it, and super-groups of the groups of `count` rows
    in the same columns (SpQR, arXiv 2306.03078), fewer in the last rows.
    """

    size: int | None = None
    count: int = 1
    axis: str = "cols"

    def __post_init__(self) -> None:
        if self.size is not None and not 1 <= self.size <= 1 << 20:
            raise FormatError(f"group of {self.size}", accepted="1 to 1048576, or row")
        if not 1 <= self.count <= 1 << 12 or (self.size is None and self.count != 1):
            raise FormatError(f"super-group of {self.count} groups", accepted="1 to 4096")
        if self.axis not in AXES:
            raise FormatError(f"grouping along '{self.axis}'", accepted=", ".join(AXES))

    @property
    def spell(self) -> str:
        """Text of this grouping in a format's spelling."""
        size = "row" if self.size is None else str(self.size)
        count = f"x{self.count}" if self.count > 1 else ""
        return size + count + ("" if self.axis == "cols" else f".{self.axis}")


WHOLE_ROWS = Grouping()


def _check_density(permille: int | None) -> None:
    if permille is not None and not 1 <= permille <= 999:
        raise FormatError(f"{permille} permille of weights kept", accepted="1 to 999")


def _spell_density(permille: int | None) -> str:
    return "" if permille is None else f".{permille}"


@dataclass(frozen=True)
class NOfM:
    """`keep` of every `of` consecutive weights of a row are kept, the others are zero.

    block: how many rows, one below the other, keep the same columns; 1 for independent rows.
    FlightLLM keeps N of 16 in 16 x 16 blocks (arXiv 2401.03868).
    """

    keep: int
    of: int
    block: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.keep < self.of <= 1024 or not 1 <= self.block <= 1024:
            raise FormatError(f"sparsity '{self.spell}'", accepted="NofM with 1 <= N < M <= 1024")

    @property
    def spell(self) -> str:
        """Text of this pattern in a format's spelling."""
        return f"{self.keep}of{self.of}" + (f".block{self.block}" if self.block > 1 else "")


@dataclass(frozen=True)
class Blocks:
    """Whole blocks of rows x cols are zero or kept (BCSR).

    permille: how many blocks of 1000 a quantizer keeps; None keeps those that are not zero.
    """

    rows: int
    cols: int
    permille: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= 4096 or not 1 <= self.cols <= 4096:
            raise FormatError(f"sparsity '{self.spell}'", accepted="bcsrRxC of 1 to 4096")
        _check_density(self.permille)

    @property
    def spell(self) -> str:
        """Text of this pattern in a format's spelling."""
        return f"bcsr{self.rows}x{self.cols}" + _spell_density(self.permille)


@dataclass(frozen=True)
class Unstructured:
    """Any weight may be zero; `index` says how positions are stored: csr or bitmap.

    permille: how many weights of 1000 a quantizer keeps; None keeps those that are not zero.
    """

    index: str
    permille: int | None = None

    def __post_init__(self) -> None:
        if self.index not in ("csr", "bitmap"):
            raise FormatError(f"sparsity index '{self.index}'", accepted="csr, bitmap")
        _check_density(self.permille)

    @property
    def spell(self) -> str:
        """Text of this pattern in a format's spelling."""
        return self.index + _spell_density(self.permille)


Sparsity = NOfM | Blocks | Unstructured


@dataclass(frozen=True)
class Outliers:
    """The `permille` / 1000 worst weights also have an exact additive value (SpQR).

    index: csr has a 32-bit offset per row and 16-bit columns (32-bit beyond 65536 columns), coo
    32-bit rows and columns; dtype: type of the values.
    """

    index: str
    permille: int
    dtype: str

    def __post_init__(self) -> None:
        if self.index not in ("coo", "csr") or self.dtype not in FACTOR_TYPES:
            raise FormatError(
                f"correction '{self.spell}'",
                accepted="outliers.coo|csr.PERMILLE.f32|f16|bf16",
            )
        if not 1 <= self.permille <= 500:
            raise FormatError(f"{self.permille} permille of outliers", accepted="1 to 500")

    @property
    def spell(self) -> str:
        """Text of this correction in a format's spelling."""
        return f"outliers.{self.index}.{self.permille}.{self.dtype}"


@dataclass(frozen=True)
class LowRank:
    """A residual of `rank` is added as two thin matrices of `dtype` (GEAR)."""

    rank: int
    dtype: str

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 4096 or self.dtype not in FACTOR_TYPES:
            raise FormatError(f"correction '{self.spell}'", accepted="lowrank.RANK.f32|f16|bf16")

    @property
    def spell(self) -> str:
        """Text of this correction in a format's spelling."""
        return f"lowrank.{self.rank}.{self.dtype}"


@dataclass(frozen=True)
class Rotation:
    """The contracted dimension is rotated by Hadamard blocks of `size`, a power of two (HALO).

    Codes are of W R with R block diagonal, each block the symmetric orthonormal Hadamard matrix
    of Sylvester's order; so x Wt = (x R) (W R)t, and R is its own inverse. Nothing is stored.
    """

    size: int

    def __post_init__(self) -> None:
        if not 2 <= self.size <= 1 << 16 or self.size & (self.size - 1):
            raise FormatError(
                f"Hadamard rotation of {self.size}", accepted="a power of two, 2 to 65536"
            )

    @property
    def spell(self) -> str:
        """Text of this correction in a format's spelling."""
        return f"hadamard.{self.size}"


@dataclass(frozen=True)
class Smoothing:
    """Columns are divided by a vector that the activations are multiplied by (SmoothQuant+).

    The vector is stored as f32. Where there is a rotation too, it comes after the division.
    """

    @property
    def spell(self) -> str:
        """Text of this correction in a format's spelling."""
        return "smooth"


Correction = Outliers | LowRank | Rotation | Smoothing
TRANSFORMS = (Smoothing, Rotation)
"""Corrections that change the basis of the codes, in the order in which a matrix goes through."""
