"""The canonical form of a quantized matrix: codes, scales, zeros and T."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.arrays import F32, U8
from nybble.dialects.lowbit.formats.errors import FormatError
from nybble.dialects.lowbit.formats.transforms import rotate

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TreeParts:
    """What a scale tree of two levels stores: f32 base [rows / tall, supers], u8 codes.

    codes: [rows, groups], each under the base of its `tall` rows and groups / supers groups (and
    their `low`, for a tree that has one). Under a scale of the whole matrix, base is [1, 1] and
    codes are the bytes of the floats.

    Kept beside the expanded scales because a product does not determine its factors, so that
    unpack followed by pack gives the same bytes.
    """

    base: F32
    codes: U8
    tall: int = 1
    low: F32 | None = None

    def spread(self, supers: F32) -> F32:
        """f32 [rows / tall, supers], a value per super-group, for every group: [rows, groups]."""
        rows, groups = self.codes.shape
        tall = np.repeat(supers, self.tall, axis=0)[:rows]
        return np.repeat(tall, groups // max(supers.shape[1], 1), axis=1)


@dataclass(frozen=True, eq=False)
class Outlying:
    """Additive exact values at single places: i32 rows, i32 cols, f32 values, equally long.

    Quantizers and unpacking give them by row, then by column, no place twice.
    """

    rows: np.ndarray[tuple[int], np.dtype[np.int32]]
    cols: np.ndarray[tuple[int], np.dtype[np.int32]]
    values: F32


@dataclass(frozen=True, eq=False)
class Weight:
    """`V[r,k] = scale[r,g] * T(codes[r,k]) + zero[r,g] (or 0 if not kept) (+ outliers + left @
    right)`, and the matrix is `W = V R diag(smoothing)`.

    spec: spelling of the format.
    codes: u8 [rows, cols], or None for plain floats; then `values` f32 has the result. A vector
        codebook stores no such codes, but its weights are numbers of `table` all the same.
    scale: f32 [rows, groups], each for the cols / groups columns of a group, g = k // (cols /
        groups); [rows, 0] without codes. Of a format grouped across rows it is [rows / size, cols],
        each for `size` rows.
    zero: f32 of the shape of `scale`, or None.
    zero_point: T(c) = c - zero_point where `table` is None.
    table: T(c) = table[c], f32 [2**bits]; or [choices, 2**bits] with `selector` u8 of the shape of
        `scale`.
    scale_parts, zero_parts: the stored halves of two-level trees; zero_codes: stored integer zeros
        u8, zero_points: zeros f32 stored in units of the scale: `zero = -scale * them`.
    kept: bool [rows, cols] of a sparse format, else None: a weight that is not kept is 0. Its code
        is the one that decodes to 0 if there is one (see `pruned_are_zero`), else 0; in `values` it
        is 0.
    outliers, low_rank: f32 left [rows, rank] and right [rank, cols]: what is added.
    rotation: R has Hadamard blocks of this size (see `transforms`), None is the identity: rotate
        activations alike instead of the weight. smoothing: f32 [cols], None is ones: multiply the
        activations instead, before they are rotated.
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
    zero_points: F32 | None = None
    outliers: Outlying | None = None
    low_rank: tuple[F32, F32] | None = None
    kept: Mask | None = None
    rotation: int | None = None
    smoothing: F32 | None = None

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

    @property
    def pruned_are_zero(self) -> bool:
        """Whether codes, scales and zeros alone give 0 wherever a weight is not kept."""
        if self.kept is None or self.codes is None:
            return True
        return not self._decode(self.codes)[~self.kept].any()

    def dequantize(self) -> F32:
        """f32 [rows, cols]: the specification of what the format means."""
        with np.errstate(invalid="ignore", over="ignore"):
            result = self.in_its_basis()
            if self.rotation is not None:
                result = rotate(result, self.rotation)
            if self.smoothing is not None:
                result *= self.smoothing
        return result

    def in_its_basis(self) -> F32:
        """V, f32 [rows, cols]: what a product takes whose activations went through the transforms
        of the format.
        """
        result = self.require_values().copy() if self.codes is None else self._decode(self.codes)
        if self.kept is not None:
            result[~self.kept] = 0
        if self.outliers is not None:
            np.add.at(result, (self.outliers.rows, self.outliers.cols), self.outliers.values)
        if self.low_rank is not None:
            result += self.low_rank[0] @ self.low_rank[1]
        return result

    def _decode(self, codes: U8) -> F32:
        rows, cols = codes.shape
        tall, groups = self.scale.shape
        shape = (tall, rows // max(tall, 1), groups, cols // max(groups, 1))
        with np.errstate(invalid="ignore", over="ignore"):
            values = self._element_values(codes, shape).reshape(shape)
            values *= self.scale[:, None, :, None]
            if self.zero is not None:
                values += self.zero[:, None, :, None]
        return values.reshape(rows, cols)

    def _element_values(self, codes: U8, shape: tuple[int, int, int, int]) -> F32:
        """T(codes): a new f32 [rows, cols]."""
        if self.table is None:
            values = codes.astype(np.float32)
            values -= np.float32(self.zero_point)
            return values
        if self.selector is None:
            return self.table[codes]
        chosen = np.broadcast_to(self.selector[:, None, :, None], shape)
        return self.table[chosen.reshape(codes.shape), codes]
