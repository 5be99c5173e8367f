"""The numbers of a kernel measurement: weights, activations, and what their product is in f64."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nybble.dialects.lowbit import formats
from nybble.tools.bench.options import Shape

DISTINCT_ROWS = 256


@dataclass(frozen=True, eq=False)
class Sample:
    """A weight in a format and token rows to multiply it with.

    spec: the format's name, as it was asked for. raw: u8 [rows, row bytes], as the format stores
    them; x: f32 [n, cols]. The rows are drawn from DISTINCT_ROWS quantized ones, in random order:
    quantizing all of a big matrix would take longer than measuring it.
    """

    spec: str
    shape: Shape
    raw: NDArray[np.uint8]
    x: NDArray[np.float32]
    _values: NDArray[np.float64]
    _order: NDArray[np.int64]

    @property
    def format(self) -> formats.Format:
        """The weight's format."""
        return formats.get(self.spec)

    @property
    def weight_bytes(self) -> int:
        """Of the weight as stored."""
        return self.raw.nbytes

    @property
    def operations(self) -> int:
        """Multiplications and additions of the product."""
        return 2 * self.shape.rows * self.shape.cols * len(self.x)

    @cached_property
    def product(self) -> NDArray[np.float64]:
        """x times the dequantized weight, in f64: [n, rows]."""
        return (self.x.astype(np.float64) @ self._values.T)[:, self._order]

    def nmse(self, result: NDArray[np.float32]) -> float:
        """Normalized mean square error of a result [n, rows] against `product`."""
        difference = result.astype(np.float64) - self.product
        return float(np.square(difference).sum() / np.square(self.product).sum())


def make_sample(spec: str, shape: Shape, n: int, seed: int = 0) -> Sample:
    """Normally distributed weights and activations; raises FormatError where they do not fit."""
    random = np.random.default_rng(seed)
    format_ = formats.get(spec)
    format_.check_shape((shape.rows, shape.cols))
    dense = random.standard_normal((min(shape.rows, DISTINCT_ROWS), shape.cols), np.float32)
    weight = format_.quantize(dense)
    order = random.integers(0, len(dense), shape.rows)
    return Sample(
        spec,
        shape,
        format_.pack(weight)[order],
        random.standard_normal((n, shape.cols), np.float32),
        weight.dequantize().astype(np.float64),
        order,
    )
