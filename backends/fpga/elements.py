"""Which processing element computes with a number format, and why one cannot."""

from collections.abc import Callable

import numpy as np

from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.attrs import ElementAttr, LookupAttr, MultiplyAttr, SparseAttr
from nybble.dialects.lowbit.formats import Format
from nybble.dialects.lowbit.formats.affine import Affine, affine
from nybble.dialects.lowbit.formats.element import Ternary
from nybble.dialects.lowbit.formats.structure import NOfM

MOST_PLANES = 4
LARGEST_VALUE = 127
"""The largest integer that a code may stand for, where products are narrow."""
MOST_HALVINGS = 6


class ElementError(NybbleError):
    """A format that a processing element cannot compute with."""


def lookup_element(description: Format) -> LookupAttr:
    """Trits three to a table, bits five; raises ElementError.

    Where the values lie evenly around 0, a bit takes its activations with either sign, and nothing
    is left to add.
    """
    check_dense(description)
    element = description.element
    line = affine(element)
    if isinstance(element, Ternary):
        return LookupAttr.get(digits=(-1, 0, 1), planes=1, step=1, first=0)
    if line is None or element.bits > MOST_PLANES:
        raise ElementError(
            f"codes of '{description.spec}' are no bits of a few planes",
            accepted=f"trits, or integers of 1 to {MOST_PLANES} bits whose values lie on a line",
        )
    span = line.step * (2**element.bits - 1)
    if line.step % 2 == 0 and 2 * line.first == -span:
        half = line.step // 2
        return LookupAttr.get(digits=(-1, 1), planes=element.bits, step=half, first=0)
    return LookupAttr.get(digits=(0, 1), planes=element.bits, step=line.step, first=line.first)


def multiply_element(description: Format) -> MultiplyAttr:
    """A product for each weight; raises ElementError."""
    check_dense(description)
    return MultiplyAttr.get(values=integers_of(description)[0])


def integers_of(description: Format) -> tuple[tuple[int, ...], int]:
    """What the codes stand for, as integers, and the power of two that they were multiplied by."""
    element = description.element
    line = affine(element)
    if line is not None:
        return _line(line, element.bits), 1
    table = element.plain_table
    if table is None or table.ndim != 1:
        raise ElementError(
            f"codes of '{description.spec}' have no single table of values",
            accepted="integers, or codes of one small table",
        )
    for shift in range(MOST_HALVINGS + 1):
        scaled = table.astype(np.float64) * 2**shift
        if (scaled == np.rint(scaled)).all() and np.abs(scaled).max() <= LARGEST_VALUE:
            return tuple(int(one) for one in scaled), 2**shift
    raise ElementError(
        f"the values of '{description.spec}' are no small integers in a unit of their own",
        accepted=f"multiples of a power of two, up to {LARGEST_VALUE} times it",
    )


def _line(line: Affine, bits: int) -> tuple[int, ...]:
    return tuple(line.step * code + line.first for code in range(2**bits))


def sparse_element(description: Format) -> SparseAttr:
    """The kept columns of each block; raises ElementError."""
    check_codes(description)
    sparsity = description.sparsity
    if not isinstance(sparsity, NOfM):
        raise ElementError(
            f"'{description.spec}' does not keep some of so many columns", accepted="NofM"
        )
    size = description.grouping.size
    if size is not None and size % sparsity.of:
        raise ElementError(
            f"groups of {size} columns of '{description.spec}'",
            accepted=f"a multiple of {sparsity.of} columns",
        )
    values = integers_of(description)[0]
    return SparseAttr.get(keep=sparsity.keep, of=sparsity.of, block=sparsity.block, values=values)


def check_dense(description: Format) -> None:
    """Raise ElementError for what no element of a dense product is made for."""
    check_codes(description)
    if description.sparsity is not None:
        raise ElementError(f"'{description.spec}' is sparse", accepted="dense codes")


def check_codes(description: Format) -> None:
    """Raise ElementError for what no element is made for."""
    faults = {
        "has no codes": description.is_plain or not description.has_codes,
        "has zeros of its groups": description.zero is not None,
        "is grouped across rows": description.grouping.axis != "cols",
        "is corrected after the product": bool(description.corrections),
    }
    for fault, found in faults.items():
        if found:
            raise ElementError(
                f"'{description.spec}' {fault}", accepted="codes with a scale for each group"
            )


ELEMENTS: dict[str, Callable[[Format], ElementAttr]] = {
    "lut_array": lookup_element,
    "multiply_array": multiply_element,
    "sparse_chain": sparse_element,
}
"""Dataflow -> the element of its array."""
