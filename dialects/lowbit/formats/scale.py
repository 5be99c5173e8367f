"""Scale and zero trees: S and Z of `W[r,k] = S[r,g] * T(c[r,k]) + Z[r,g]`.

A scale is a stored float, a small integer under a stored float that a super-group shares, or a
stored float under one of the whole matrix. A zero is nothing, a stored minimum (a tree of its own),
a stored integer zero point, or a tree in units of the scale.
"""

from dataclasses import dataclass

from nybble.dialects.lowbit.formats.errors import FormatError

SCALE_BITS = {"f32": 32, "f16": 16, "bf16": 16, "e8m0": 8, "e4m3": 8}


@dataclass(frozen=True)
class FloatScale:
    """One stored float per group: f32, f16, bf16, e8m0 (2**(e-127), MX) or e4m3 (NVFP4)."""

    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in SCALE_BITS:
            raise FormatError(f"unknown scale type '{self.dtype}'", accepted=", ".join(SCALE_BITS))

    @property
    def spell(self) -> str:
        """Text of this scale in a format's spelling."""
        return self.dtype


@dataclass(frozen=True)
class SuperScale:
    """`(c - offset) * base`: integers of `width` bits per group, a float per super-group.

    has_low: `c * base + low` instead, with a second float per super-group (SpQR).
    """

    width: int
    offset: int
    base: FloatScale
    has_low: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 8 or not 0 <= self.offset < 2**self.width:
            raise FormatError(
                f"sub-scale '{self.spell}'", accepted="uN or uN-OFFSET with N of 1 to 8"
            )
        signed = self.base.dtype not in ("e8m0", "e4m3")
        if self.has_low and (self.offset or not signed):
            raise FormatError(
                f"sub-scale '{self.spell}'", accepted="+min without an offset, on f32, f16 or bf16"
            )

    @property
    def dtype(self) -> str:
        """Type of the stored float."""
        return self.base.dtype

    @property
    def spell(self) -> str:
        """Text of this scale in a format's spelling."""
        offset = f"-{self.offset}" if self.offset else ""
        low = "+min" if self.has_low else ""
        return f"u{self.width}{offset}*{self.base.spell}{low}"


@dataclass(frozen=True)
class TensorScale:
    """A stored byte per group times one f32 of the whole matrix (NVFP4 as checkpoints have it)."""

    inner: FloatScale

    def __post_init__(self) -> None:
        if SCALE_BITS[self.inner.dtype] != 8:
            raise FormatError(f"scale '{self.spell}'", accepted="e4m3*tensor, e8m0*tensor")

    @property
    def dtype(self) -> str:
        """Type of the float per group."""
        return self.inner.dtype

    @property
    def spell(self) -> str:
        """Text of this scale in a format's spelling."""
        return f"{self.inner.spell}*tensor"


ScaleTree = FloatScale | SuperScale | TensorScale


@dataclass(frozen=True)
class StoredMin:
    """Z is a stored scale tree, negated if `negated` (K-quants subtract their minima)."""

    tree: ScaleTree
    negated: bool = False

    @property
    def spell(self) -> str:
        """Text of this zero in a format's spelling."""
        return f"{'neg' if self.negated else 'min'}.{self.tree.spell}"


@dataclass(frozen=True)
class IntegerZero:
    """Z = -S * z with a stored integer z of `width` bits per group (GPTQ, AWQ)."""

    width: int

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 8:
            raise FormatError(f"integer zero of {self.width} bits", accepted="1 to 8 bits")

    @property
    def spell(self) -> str:
        """Text of this zero in a format's spelling."""
        return f"int.u{self.width}"


@dataclass(frozen=True)
class ScaledZero:
    """Z = -S * z with z a stored scale tree: a zero point that need not be an integer (SpQR)."""

    tree: ScaleTree

    @property
    def spell(self) -> str:
        """Text of this zero in a format's spelling."""
        return f"scaled.{self.tree.spell}"


Zero = StoredMin | IntegerZero | ScaledZero


def tree_bits(tree: ScaleTree, group: int, super_group: int) -> float:
    """Bits per weight of a tree; group and super_group in weights."""
    if not isinstance(tree, SuperScale):
        return SCALE_BITS[tree.dtype] / group
    floats = 2 if tree.has_low else 1
    return tree.width / group + floats * SCALE_BITS[tree.dtype] / super_group
