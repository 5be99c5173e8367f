"""Codes whose meaning is a straight line, which products by bit planes need."""

from dataclasses import dataclass

import numpy as np

from nybble.dialects.lowbit.formats.element import Element


@dataclass(frozen=True)
class Affine:
    """T(c) = step * c + first, both integers."""

    step: int
    first: int


def affine(element: Element) -> Affine | None:
    """T of an element as a line: uniform, ternary and bipolar integers. None for all others."""
    if not element.has_codes:
        return None
    if element.table is None:
        return Affine(1, -element.zero_point)
    table = element.plain_table
    if table is None or table.ndim != 1 or len(table) < 2:
        return None
    step, first = table[1] - table[0], table[0]
    line = step * np.arange(len(table), dtype=np.float32) + first
    whole = float(step).is_integer() and float(first).is_integer() and step != 0
    return Affine(int(step), int(first)) if whole and np.array_equal(table, line) else None
