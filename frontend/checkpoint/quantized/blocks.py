"""Which weights of a matrix share a scale, where that may be several rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nybble.frontend.checkpoint.quantized.layer import Content
from nybble.frontend.checkpoint.quantized.numbers import U8, Floats

Item = TypeVar("Item", bound=np.generic)


@dataclass(frozen=True)
class Blocks:
    """One scale for `rows` x `cols` weights; None: all rows, all columns."""

    rows: int | None
    cols: int | None

    def shapes(self, shape: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
        """The shapes that the scales of a weight [rows, cols] may be stored in."""
        tall = 1 if self.rows is None else -(-shape[0] // self.rows)
        wide = 1 if self.cols is None else -(-shape[1] // self.cols)
        found: tuple[tuple[int, ...], ...] = ((tall, wide),)
        if wide == 1:
            found += ((tall,),)
        return (*found, ()) if tall == wide == 1 else found

    def content(
        self,
        rows: int,
        codes: Callable[[], U8],
        scale: Callable[[], Floats],
        zeros: Callable[[], U8] | None,
    ) -> Callable[[], Content]:
        """What reads a weight: codes u8 [rows, cols], scales and zeros in one of the `shapes`."""

        def read() -> Content:
            found = None if zeros is None else self._expand(zeros(), rows)
            return Content(codes(), self._expand(scale(), rows), found)

        return read

    def _expand(self, scales: NDArray[Item], rows: int) -> NDArray[Item]:
        """[rows, groups]."""
        tall = rows if self.rows is None else self.rows
        return np.repeat(scales.reshape(-(-rows // tall), -1), tall, axis=0)[:rows]
