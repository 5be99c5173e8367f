"""The code whose T is nearest to a number, for every coded element."""

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.arrays import F32, U8
from nybble.dialects.lowbit.formats.element import Element, Ternary, Uniform

_FEW = 32
"""Of so many thresholds, comparing with each is faster than a search."""


def code_range(element: Element) -> tuple[int, int]:
    """Lowest and highest code that a quantizer uses for an affine element."""
    if isinstance(element, Ternary):
        return 0, 2
    lowest = 1 if isinstance(element, Uniform) and element.narrow else 0
    return lowest, 2**element.bits - 1


def ratio(numbers: F32, scale: F32) -> F32:
    """numbers / scale, and 0 where the scale is 0; f32 arrays that broadcast."""
    quotient = np.zeros(np.broadcast_shapes(numbers.shape, scale.shape), np.float32)
    with np.errstate(over="ignore"):
        return np.divide(numbers, scale, out=quotient, where=scale != 0)


def nearest_codes(element: Element, numbers: F32, choice: int = 0) -> U8:
    """Codes u8 of the shape of `numbers` (f32, in units of the scale); ties to the even integer,
    in a table to the lower code. choice: which table of an element that has several.
    """
    table = element.table
    if table is None:
        low, high = code_range(element)
        return np.clip(np.rint(numbers) + element.zero_point, low, high).astype(np.uint8)
    return nearest_in_table(table[choice] if table.ndim == 2 else table, numbers)


def nearest_in_table(table: F32, numbers: F32) -> U8:
    """The index of the nearest finite entry of f32 [n]; the lower index at a tie."""
    finite = np.flatnonzero(np.isfinite(table))
    values, first = np.unique(table[finite], return_index=True)
    index = finite[first]
    starts = _starts(values, index)
    if len(starts) > _FEW:
        return index.astype(np.uint8)[np.searchsorted(starts, numbers, side="right")]
    place = np.zeros(numbers.shape, np.uint8)
    for start in starts:
        place += numbers >= start
    return index.astype(np.uint8)[place]


def _starts(values: F32, index: npt.NDArray[np.intp]) -> F32:
    """The least f32 nearer to each value than to the one before, f32 [n - 1], of rising values.

    A number in the middle goes to the lower index.
    """
    middle = (values[1:].astype(np.float64) + values[:-1]) / 2
    near = middle.astype(np.float32)
    above = np.nextafter(near, np.float32(np.inf))
    at_least = np.where(near >= middle, near, above)
    return np.where((near == middle) & (index[:-1] < index[1:]), above, at_least)


def code_values(element: Element, codes: U8, choice: int = 0) -> F32:
    """T(codes): f32 of the same shape."""
    table = element.table
    if table is None:
        return codes.astype(np.float32) - np.float32(element.zero_point)
    return (table[choice] if table.ndim == 2 else table)[codes]
