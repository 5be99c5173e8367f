"""Which processing element computes with a number format, and why one cannot."""

from collections.abc import Callable

import numpy as np

from nybble.dialects.errors import NybbleError
from nybble.dialects.fpga.attrs import ElementAttr, LookupAttr, MultiplyAttr, SparseAttr
from nybble.dialects.fpga.serial import SerialAttr
from nybble.dialects.fpga.xnor import XnorAttr
from nybble.dialects.lowbit.formats import Format
from nybble.dialects.lowbit.formats.affine import Affine, affine
from nybble.dialects.lowbit.formats.element import Bipolar, Ternary
from nybble.dialects.lowbit.formats.structure import NOfM

MOST_PLANES = 4
LARGEST_VALUE = 127
"""The largest integer that a code may stand for, where products are narrow."""
MOST_HALVINGS = 6
DENSE_BLOCK = 16
"""Columns of a block of a dense weight, as those of N:16 (FlightLLM, arXiv 2401.03868)."""


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
    check_single(description)
    return MultiplyAttr.get(values=integers_of(description)[0])


def serial_element(description: Format) -> SerialAttr:
    """A term of each weight in a cycle, of tables that groups choose; raises ElementError."""
    check_dense(description)
    values = integers_of(description)[0]
    return SerialAttr.get(values=values, choices=description.element.choices)


def xnor_element(description: Format, planes: int) -> XnorAttr:
    """Bits of bipolar weights against those of activations of `planes`; raises ElementError."""
    check_dense(description)
    element = description.element
    if not isinstance(element, Bipolar) or element.width > MOST_PLANES:
        raise ElementError(
            f"codes of '{description.spec}' are no bipolar integers of a few planes",
            accepted=f"w1, and bipN of 1 to {MOST_PLANES} bits",
        )
    if description.zero is not None:
        raise ElementError(
            f"'{description.spec}' has zeros of its groups", accepted="bipolar integers and scales"
        )
    return XnorAttr.get(planes=element.width, taken=planes)


def integers_of(description: Format) -> tuple[tuple[int, ...], int]:
    """What the codes stand for, as integers, and the power of two that they were multiplied by.

    Of tables that groups choose from, one after the other; raises ElementError.
    """
    element = description.element
    line = affine(element)
    if line is not None:
        return _line(line, element.bits), 1
    table = element.plain_table
    if table is None:
        raise ElementError(
            f"codes of '{description.spec}' have no table of values",
            accepted="integers, or codes of small tables",
        )
    table = table.reshape(-1)
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
    """The kept columns of each block, all of them of a dense weight; raises ElementError."""
    check_codes(description)
    check_single(description)
    sparsity = description.sparsity
    values = integers_of(description)[0]
    if sparsity is None:
        return SparseAttr.get(keep=DENSE_BLOCK, of=DENSE_BLOCK, block=1, values=values)
    if not isinstance(sparsity, NOfM) or description.zero is not None:
        fault = "does not keep some of so many columns"
        raise ElementError(
            f"'{description.spec}' " + (fault if description.zero is None else "keeps zeros"),
            accepted="NofM without zeros of groups, or dense codes",
        )
    size = description.grouping.size
    if size is not None and size % sparsity.of:
        raise ElementError(
            f"groups of {size} columns of '{description.spec}'",
            accepted=f"a multiple of {sparsity.of} columns",
        )
    return SparseAttr.get(keep=sparsity.keep, of=sparsity.of, block=sparsity.block, values=values)


def check_dense(description: Format) -> None:
    """Raise ElementError for what no element of a dense product is made for."""
    check_codes(description)
    if description.sparsity is not None:
        raise ElementError(f"'{description.spec}' is sparse", accepted="dense codes")


def check_single(description: Format) -> None:
    """Raise ElementError for tables that groups choose from."""
    if description.element.choices > 1:
        raise ElementError(
            f"groups of '{description.spec}' choose from {description.element.choices} tables",
            accepted="one table of values",
        )


def check_codes(description: Format) -> None:
    """Raise ElementError for what no element is made for."""
    faults = {
        "has no codes": description.is_plain or not description.has_codes,
        "is grouped across rows": description.grouping.axis != "cols",
        "is corrected after the product": bool(description.corrections),
    }
    for fault, found in faults.items():
        if found:
            raise ElementError(
                f"'{description.spec}' {fault}", accepted="codes with a scale for each group"
            )


MODE = "i8-token"
"""Activations of 8 bits with one scale for each token."""
BIPOLAR_MODES = {f"b{planes}-token": planes for planes in range(1, MOST_PLANES + 1)}
"""Mode -> the bits of activations that are bipolar integers with one scale for each token."""
XNOR = "xnor_array"
ELEMENTS: dict[str, Callable[[Format], ElementAttr]] = {
    "lut_array": lookup_element,
    "multiply_array": multiply_element,
    "sparse_chain": sparse_element,
    "serial_array": serial_element,
}
"""Dataflow -> the element of its array, for activations of 8 bits."""
DATAFLOWS = (*ELEMENTS, XNOR)


def element_of(dataflow: str, description: Format, activations: str) -> ElementAttr:
    """The element of a dataflow for activations of a mode; raises ElementError."""
    planes = BIPOLAR_MODES.get(activations, 0)
    wanted = tuple(BIPOLAR_MODES) if dataflow == XNOR else (MODE,)
    if activations not in wanted:
        raise ElementError(f"activations {activations}", accepted=", ".join(wanted))
    return xnor_element(description, planes) if planes else ELEMENTS[dataflow](description)
