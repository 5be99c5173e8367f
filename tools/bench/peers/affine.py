"""A sample's weight as other systems take it: codes, scales and zero points by group."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nybble.dialects.lowbit.formats import FormatError, Weight
from nybble.tools.bench.data import Sample
from nybble.tools.bench.errors import UnavailableError

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
_NEARLY = 1e-5  # of a step: what the division by a scale may lose of a whole zero point


@dataclass(frozen=True, eq=False)
class Affine:
    """`W[r, k] = scale[r, g] * (codes[r, k] - zero_point[r, g])` with `g = k // group`.

    codes: u8 [rows, cols] below 2**bits; scale, zero_point: f32 [rows, groups].
    """

    codes: U8
    bits: int
    group: int
    scale: F32
    zero_point: F32

    @property
    def whole_zero_points(self) -> U8 | None:
        """The zero points as u8 [rows, groups] where all are codes; else None."""
        near = np.rint(self.zero_point)
        whole = np.abs(near - self.zero_point).max(initial=0) <= _NEARLY
        inside = near.min(initial=0) >= 0 and near.max(initial=0) < 2**self.bits
        return near.astype(np.uint8) if whole and inside else None

    def packed(self, values: U8) -> U8:
        """u8 [rows, n] with the values' bits side by side, the first in the low bits of a byte.

        A row ends with a whole byte, filled up with zeros.
        """
        each = 8 // self.bits
        padded = np.pad(values, ((0, 0), (0, -values.shape[1] % each)))
        parts = padded.reshape(len(values), -1, each)
        shifts = (np.arange(each) * self.bits).astype(np.uint8)
        return np.bitwise_or.reduce(parts << shifts, axis=-1)


def affine(sample: Sample, widths: tuple[int, ...]) -> Affine:
    """The weight with codes of the narrowest of `widths` that holds them.

    Raises UnavailableError where the format's values do not lie on a line.
    """
    spec, cols = sample.spec, sample.shape.cols
    try:
        weight = sample.format.unpack(sample.raw, cols)
    except FormatError as error:
        raise UnavailableError(f"format '{spec}' has no stored bytes: {error.message}") from None
    if weight.codes is None or weight.selector is not None or weight.outliers is not None:
        raise UnavailableError(f"format '{spec}' is not codes with scales and zero points")
    step, zero_point = _line(weight, spec)
    bits = next((width for width in widths if width >= sample.format.element.bits), None)
    if bits is None:
        raise UnavailableError(
            f"format '{spec}' has codes of {sample.format.element.bits} bits",
            accepted=f"{', '.join(map(str, widths))} bits",
        )
    scale = weight.scale * np.float32(step)
    points = np.full_like(scale, zero_point)
    if weight.zero is not None:
        points -= np.divide(weight.zero, scale, out=np.zeros_like(scale), where=scale != 0)
    group = cols // scale.shape[1]
    return Affine(weight.codes, bits, group, scale, points)


def _line(weight: Weight, spec: str) -> tuple[float, float]:
    """Step and zero point of T(c) = step * (c - zero point)."""
    if weight.table is None:
        return 1.0, float(weight.zero_point)
    steps = np.diff(weight.table)
    if weight.table.ndim != 1 or np.any(steps != steps[0]) or steps[0] == 0:
        raise UnavailableError(f"the values of format '{spec}' are not on a line")
    return float(steps[0]), float(-weight.table[0] / steps[0])
