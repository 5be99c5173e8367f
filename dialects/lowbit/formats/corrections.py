"""What is kept apart of a quantized matrix: outliers and low-rank residuals, and groups to fit."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.arrays import F32, largest
from nybble.dialects.lowbit.formats.description import Description
from nybble.dialects.lowbit.formats.numeric import round_to
from nybble.dialects.lowbit.formats.structure import LowRank, Outliers
from nybble.dialects.lowbit.formats.weight import Mask, Outlying, TreeParts, Weight

Item = TypeVar("Item", bound=np.generic)


@dataclass(frozen=True)
class Fit:
    """How a matrix is cut in groups that quantizers see along rows: `size` weights each.

    turned: groups lie across rows, so that quantizers see the transposed matrix.
    """

    size: int
    turned: bool
    count: int

    @staticmethod
    def of(description: Description, shape: tuple[int, int]) -> "Fit":
        """The cut of a matrix [rows, cols], neither 0."""
        turned = description.grouping.axis == "rows"
        size = description.grouping.size or shape[0 if turned else 1]
        return Fit(size, turned, description.grouping.count)

    def groups(self, matrix: npt.NDArray[Item]) -> npt.NDArray[Item]:
        """[rows, cols] to [rows, groups, size], of the transposed matrix if turned."""
        seen = np.ascontiguousarray(matrix.T) if self.turned else matrix
        return seen.reshape(len(seen), -1, self.size)

    def matrix(self, groups: npt.NDArray[Item]) -> npt.NDArray[Item]:
        """The inverse of `groups`."""
        seen = groups.reshape(len(groups), -1)
        return np.ascontiguousarray(seen.T) if self.turned else seen

    def turn(self, weight: Weight) -> Weight:
        """The weight of a turned matrix as that of the matrix itself."""
        if not self.turned:
            return weight
        return replace(
            weight,
            codes=_transposed(weight.codes),
            scale=np.ascontiguousarray(weight.scale.T),
            zero=_transposed(weight.zero),
            selector=_transposed(weight.selector),
            zero_codes=_transposed(weight.zero_codes),
            zero_points=_transposed(weight.zero_points),
            scale_parts=self._turn_parts(weight.scale_parts),
            zero_parts=self._turn_parts(weight.zero_parts),
        )

    def _turn_parts(self, parts: TreeParts | None) -> TreeParts | None:
        if parts is None:
            return None
        base, codes = np.ascontiguousarray(parts.base.T), np.ascontiguousarray(parts.codes.T)
        return TreeParts(base, codes, self.count, _transposed(parts.low))


def _transposed(part: npt.NDArray[Item] | None) -> npt.NDArray[Item] | None:
    return None if part is None else np.ascontiguousarray(part.T)


def replace_unused(groups: F32, usable: Mask) -> F32:
    """f32 [rows, groups, size] with each unusable weight replaced by a usable one of its group.

    So extremes and means are those of the usable weights. A group without any becomes zeros.
    """
    where = ~usable.all(axis=-1)
    some, kept = groups[where], usable[where]
    order = np.argsort(~kept, axis=-1, kind="stable")
    count = kept.sum(axis=-1, keepdims=True)
    source = np.arange(groups.shape[-1]) % np.maximum(count, 1)
    others = np.take_along_axis(some, np.take_along_axis(order, source, axis=-1), axis=-1)
    result = groups.copy()
    result[where] = np.where(kept, some, np.where(count > 0, others, np.float32(0)))
    return result


def outlier_places(
    groups: F32, usable: Mask | None, count: int, dequantized: Callable[[F32], F32]
) -> Mask:
    """The `count` weights whose removal lowers the squared error most: bool of groups' shape.

    Leave-one-out, as SpQR has it (arXiv 2306.03078, 3.2) with an identity Hessian: only the removal
    of the least or the largest weight of a group changes what the others are rounded to.
    dequantized: f32 groups to what they are rounded to, f32 of as many elements.
    """

    def error(some: F32) -> F32:
        return np.square(dequantized(some).reshape(some.shape) - some)

    plain = error(groups)
    gain = plain.astype(np.float64)
    total = gain.sum(axis=-1, keepdims=True)
    for extreme in (groups.argmin(axis=-1), groups.argmax(axis=-1)):
        there = extreme[:, :, None]
        others = groups.copy()
        neighbour = np.take_along_axis(groups, (there + 1) % groups.shape[-1], axis=-1)
        np.put_along_axis(others, there, neighbour, axis=-1)
        without = error(others)
        np.put_along_axis(without, there, 0, axis=-1)
        left = without.sum(axis=-1, keepdims=True, dtype=np.float64)
        own = np.take_along_axis(gain, there, axis=-1)
        np.put_along_axis(gain, there, np.maximum(own, total - left), axis=-1)
    if usable is not None:
        gain = np.where(usable, gain, -1)
        count = min(count, int(usable.sum()))
    return largest(gain, count)


def attach(description: Description, weight: Weight, values: F32, places: Mask | None) -> Weight:
    """The weight with the corrections of its format, each made for what is still wrong.

    values: f32 [rows, cols] in the basis of the codes. places: of outliers; None takes the places
    of largest error.
    """
    for correction in description.corrections:
        if isinstance(correction, Outliers):
            residual = values - weight.in_its_basis()
            count = residual.size * correction.permille // 1000
            where = largest(np.abs(residual), count) if places is None else places
            rows, cols = (index.astype(np.int32) for index in np.nonzero(where))
            kept = round_to(correction.dtype, residual[where].reshape(1, -1))[0]
            weight = replace(weight, outliers=Outlying(rows, cols, kept))
        elif isinstance(correction, LowRank):
            residual = values - weight.in_its_basis()
            weight = replace(weight, low_rank=_low_rank(correction, residual))
    return weight


def _low_rank(correction: LowRank, residual: F32) -> tuple[F32, F32]:
    """Truncated SVD: f32 [rows, rank] and f32 [rank, cols]."""
    left, singular, right = np.linalg.svd(residual, full_matrices=False)
    rank = min(correction.rank, len(singular))
    thin = np.ascontiguousarray(left[:, :rank] * singular[:rank])
    return round_to(correction.dtype, thin), round_to(correction.dtype, right[:rank])
