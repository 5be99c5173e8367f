"""How a matrix of numbers becomes a weight of a format: as the format rounds, by a search, or with
compensation of the errors by what is known of its inputs (`frontend.compensation`).

The rounding of most formats takes the extremes of each group of columns (see docs/formats.md),
which is best for numbers that all count alike and bad for few codes: one outlier makes every step
of its group coarse. The search tries to cut the extremes of each group off, by a factor at a time,
and keeps the cut of least squared error. It looks at the format from outside, and so works for all.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats import Format, Weight
from nybble.frontend.compensation import Hessian, compensated
from nybble.frontend.weight_choice import QUANTIZERS

F32 = npt.NDArray[np.float32]
CUTS = (0.92, 0.84, 0.76, 0.68, 0.6, 0.52)


def nearest(form: Format, values: F32, hessian: Hessian | None = None) -> Weight:
    """f32 [rows, cols] as the format itself rounds it."""
    return form.quantize(values)


def searched(form: Format, values: F32, hessian: Hessian | None = None) -> Weight:
    """f32 [rows, cols] rounded with the extremes of each group cut off where that is better."""
    rows, cols = values.shape
    if form.is_plain or not values.size:
        return form.quantize(values)
    groups = values.reshape(rows, -1, form.group_size(cols))
    low, high = groups.min(axis=2, keepdims=True), groups.max(axis=2, keepdims=True)

    def cut(factor: F32 | float) -> F32:
        """The values within `factor` times the extremes of their groups."""
        return np.clip(groups, factor * low, factor * high).reshape(rows, cols)

    def error(factor: float) -> F32:
        """Squared error of each group: f32 [rows, groups, 1]."""
        off = form.quantize(cut(factor)).dequantize().reshape(groups.shape) - groups
        return np.square(off, out=off).sum(axis=2, keepdims=True)

    best, least = np.ones_like(low), error(1.0)
    for factor in CUTS:
        found = error(factor)
        better = found < least
        best[better], least[better] = factor, found[better]
    return form.quantize(cut(best))


Quantizer = Callable[[Format, F32, Hessian | None], Weight]
"""Of a format, numbers f32 [rows, cols] and what is known of their inputs, if anything is."""
_BY_NAME: Mapping[str, Quantizer] = dict(
    zip(QUANTIZERS, (nearest, searched, compensated), strict=True)
)


def quantizer_named(name: str) -> Quantizer:
    """The quantizer called `name`, one of `weight_choice.QUANTIZERS`."""
    return _BY_NAME[name]
