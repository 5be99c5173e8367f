"""The canonical form of a quantized matrix: codes, scales, zeros and T."""

from dataclasses import dataclass

import numpy as np

from nybble.dialects.lowbit.formats.arrays import F32, U8
from nybble.dialects.lowbit.formats.errors import FormatError


@dataclass(frozen=True, eq=False)
class TreeParts:
    """What a two-level scale tree stores: f32 base [rows, supers] and u8 codes [rows, groups].

    Kept beside the expanded scales because a product does not determine its factors, so that
    unpack followed by pack gives the same bytes.
    """

    base: F32
    codes: U8

    def expand(self, offset: int) -> F32:
        """f32 [rows, groups]: base * (codes - offset)."""
        rows, supers = self.base.shape
        count = self.codes.shape[1] // max(supers, 1)
        small = (self.codes.astype(np.int16) - offset).astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            product = self.base[:, :, None] * small.reshape(rows, supers, count)
        return product.reshape(rows, supers * count)


@dataclass(frozen=True, eq=False)
class Outlying:
    """Additive exact values at single places: i32 rows, i32 cols, f32 values, equally long."""

    rows: np.ndarray[tuple[int], np.dtype[np.int32]]
    cols: np.ndarray[tuple[int], np.dtype[np.int32]]
    values: F32


@dataclass(frozen=True, eq=False)
class Weight:
    """`W[r,k] = scale[r,g] * T(codes[r,k]) + zero[r,g] (+ outliers + left @ right)`.

    spec: spelling of the format.
    codes: u8 [rows, cols], or None for a format without codes; then `values` f32 has the result.
    scale: f32 [rows, groups]; [rows, 0] without codes.
    zero: f32 [rows, groups] or None.
    zero_point: T(c) = c - zero_point where `table` is None.
    table: T(c) = table[c], f32 [2**bits]; or [choices, 2**bits] with `selector` u8 [rows, groups].
    scale_parts, zero_parts: the stored halves of two-level trees; zero_codes: stored integer zeros.
    """

    spec: str
    codes: U8 | None
    scale: F32
    zero: F32 | None = None
    zero_point: int = 0
    table: F32 | None = None
    selector: U8 | None = None
    values: F32 | None = None
    scale_parts: TreeParts | None = None
    zero_parts: TreeParts | None = None
    zero_codes: U8 | None = None
    outliers: Outlying | None = None
    low_rank: tuple[F32, F32] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        array = self.require_values() if self.codes is None else self.codes
        return array.shape[0], array.shape[1]

    def require_codes(self) -> U8:
        """The codes; raises FormatError for a format that has none."""
        if self.codes is None:
            raise FormatError(
                f"a weight of format '{self.spec}' has no codes", accepted="its dequantized values"
            )
        return self.codes

    def require_values(self) -> F32:
        """The values of a format without codes."""
        assert self.values is not None, "a weight has codes or values"
        return self.values

    def dequantize(self) -> F32:
        """f32 [rows, cols]: the specification of what the format means."""
        result = self.require_values().copy() if self.codes is None else self._decode(self.codes)
        if self.outliers is not None:
            np.add.at(result, (self.outliers.rows, self.outliers.cols), self.outliers.values)
        if self.low_rank is not None:
            result += self.low_rank[0] @ self.low_rank[1]
        return result

    def _decode(self, codes: U8) -> F32:
        rows, groups = self.scale.shape
        cols = codes.shape[1]
        size = cols // max(groups, 1)
        with np.errstate(invalid="ignore", over="ignore"):
            values = self._element_values(codes, size).reshape(rows, groups, size)
            values *= self.scale[:, :, None]
            if self.zero is not None:
                values += self.zero[:, :, None]
        return values.reshape(rows, cols)

    def _element_values(self, codes: U8, size: int) -> F32:
        """T(codes): a new f32 [rows, cols]."""
        if self.table is None:
            values = codes.astype(np.float32)
            values -= np.float32(self.zero_point)
            return values
        if self.selector is None:
            return self.table[codes]
        return self.table[np.repeat(self.selector, size, axis=1), codes]
