"""The numbers that weights of one group may be, once its scale, zero and table are settled."""

from dataclasses import dataclass

import numpy as np

from nybble.dialects.lowbit.formats.arrays import F32, U8
from nybble.dialects.lowbit.formats.element import Element
from nybble.dialects.lowbit.formats.nearest import code_values, nearest_codes, ratio
from nybble.dialects.lowbit.formats.weight import Weight


@dataclass(frozen=True, eq=False)
class Levels:
    """`scale * T(c) + zero` for each row; scale, zero: f32 [rows]; choice: u8 [rows], of tables."""

    element: Element
    scale: F32
    zero: F32 | None
    choice: U8 | None

    @classmethod
    def of(cls, element: Element, weight: Weight, group: int) -> "Levels":
        """Those of one group of each row of a weight with groups along rows."""
        zero, choice = weight.zero, weight.selector
        return cls(
            element,
            np.ascontiguousarray(weight.scale[:, group]),
            None if zero is None else np.ascontiguousarray(zero[:, group]),
            None if choice is None else np.ascontiguousarray(choice[:, group]),
        )

    def nearest(self, numbers: F32) -> tuple[U8, F32]:
        """The code u8 [rows] that means the nearest number to each of f32 [rows], and what it
        means."""
        zero = np.float32(0) if self.zero is None else self.zero
        scaled = ratio(numbers - zero, self.scale)
        if self.choice is None:
            codes = nearest_codes(self.element, scaled)
            means = code_values(self.element, codes)
        else:
            codes, means = np.zeros(len(scaled), np.uint8), np.zeros_like(scaled)
            for choice in range(self.element.choices):
                chosen = self.choice == choice
                codes[chosen] = nearest_codes(self.element, scaled[chosen], choice)
                means[chosen] = code_values(self.element, codes[chosen], choice)
        return codes, means * self.scale + zero
