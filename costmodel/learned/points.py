"""Points of a grid as short texts: of each axis the values that occur, and letters for them.

Workloads that were measured have few sizes each, in many combinations. Written as numbers those of
the model that comes with nybble would take 473 kB; as letters they take 79.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"


def rounded(values: Sequence[float] | F64) -> list[float]:
    """Numbers of five digits, whole ones as integers."""
    found = [float(f"{value:.5g}") for value in values]
    return [int(value) if value.is_integer() else value for value in found]


def to_letters(points: F64) -> dict[str, list[Any]]:
    """axes: the values of each axis; points: of each point the letters of its values in turn.

    An axis of one value takes no letter, one of more values than there are letters several.
    """
    axes: list[list[float]] = []
    columns: list[list[str]] = [[""] * len(points)]
    for column in np.asarray(points, np.float64).T:
        values = rounded(column)
        axis = sorted(set(values))
        axes.append(axis)
        at = {value: _letters(place, _width(len(axis))) for place, value in enumerate(axis)}
        columns.append([at[value] for value in values])
    return {"axes": axes, "points": ["".join(row) for row in zip(*columns, strict=True)]}


def from_letters(found: Mapping[str, Any]) -> F64:
    """f64 [points, axes]; raises ValueError or KeyError for what `to_letters` did not write."""
    axes = [np.array(axis, np.float64) for axis in found["axes"]]
    widths = [_width(len(axis)) for axis in axes]
    points = np.empty((len(found["points"]), len(axes)))
    for row, text in enumerate(found["points"]):
        if len(text) != sum(widths):
            raise ValueError(f"a point of {len(text)} letters, not of {sum(widths)}")
        start = 0
        for place, (axis, width) in enumerate(zip(axes, widths, strict=True)):
            number = _number(text[start : start + width])
            if number >= len(axis):
                raise ValueError(f"value {number} of an axis of {len(axis)}")
            points[row, place] = axis[number]
            start += width
    return points


def _width(values: int) -> int:
    """Letters that tell so many values apart."""
    width = 0
    while len(LETTERS) ** width < values:
        width += 1
    return width


def _letters(number: int, width: int) -> str:
    return "".join(LETTERS[number // len(LETTERS) ** i % len(LETTERS)] for i in range(width))


def _number(text: str) -> int:
    return sum(LETTERS.index(letter) * len(LETTERS) ** i for i, letter in enumerate(text))
