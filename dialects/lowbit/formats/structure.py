"""Grouping, sparsity and corrections of a number format."""

from dataclasses import dataclass

from nybble.dialects.lowbit.formats.errors import FormatError

AXES = ("cols", "rows")
FACTOR_TYPES = ("f32", "f16", "bf16")


@dataclass(frozen=True)
class Grouping:
    """Which weights share a scale.

    size: weights per group along `axis`; None is the whole row (or column).
    count: groups per super-group; 1 without one.
    axis: "cols" groups along the contracted dimension, "rows" across rows (KIVI's keys).
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


@dataclass(frozen=True)
class NOfM:
    """At most `keep` of every `of` consecutive weights of a row are not zero.

    block: rows of a tile that keep the same `keep`, 1 for independent rows; FlightLLM keeps N of
    16 in 16 x 16 blocks (arXiv 2401.03868).
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
    """Whole blocks of rows x cols are zero or kept (BCSR)."""

    rows: int
    cols: int

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= 4096 or not 1 <= self.cols <= 4096:
            raise FormatError(f"sparsity '{self.spell}'", accepted="bcsrRxC of 1 to 4096")

    @property
    def spell(self) -> str:
        """Text of this pattern in a format's spelling."""
        return f"bcsr{self.rows}x{self.cols}"


@dataclass(frozen=True)
class Unstructured:
    """Any weight may be zero; `index` says how positions are stored: csr or bitmap."""

    index: str

    def __post_init__(self) -> None:
        if self.index not in ("csr", "bitmap"):
            raise FormatError(f"sparsity index '{self.index}'", accepted="csr, bitmap")

    @property
    def spell(self) -> str:
        """Text of this pattern in a format's spelling."""
        return self.index


Sparsity = NOfM | Blocks | Unstructured


@dataclass(frozen=True)
class Outliers:
    """The `permille` / 1000 worst weights also have an exact additive value (SpQR).

    index: coo or csr; dtype: type of the values.
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
    """The contracted dimension is rotated by Hadamard blocks of `size`, a power of two (HALO)."""

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
    """Columns are divided by a vector that the activations are multiplied by (SmoothQuant+)."""

    @property
    def spell(self) -> str:
        """Text of this correction in a format's spelling."""
        return "smooth"


Correction = Outliers | LowRank | Rotation | Smoothing
