"""Pipelined sums: trees of adders, and planes put together by their coefficients."""

from collections.abc import Sequence

from nybble.backends.fpga.rtl.emit import Module, Wire


def levels(count: int) -> int:
    """Registers between the inputs and the sum of a tree."""
    return (count - 1).bit_length()


def tree(module: Module, wires: Sequence[Wire]) -> Wire:
    """The sum of wires, `levels` cycles later."""
    while len(wires) > 1:
        pairs = [
            module.add(wires[at], wires[at + 1]) if at + 1 < len(wires) else wires[at]
            for at in range(0, len(wires), 2)
        ]
        wires = [module.register(wire) for wire in pairs]
    return wires[0]


def combined(module: Module, planes: Sequence[Wire], coefficients: Sequence[int]) -> Wire:
    """sum_p coefficients[p] * planes[p], `levels` cycles later; coefficients are +-2**p.

    Neighbours are added pairwise, a pair's factor being that of its lower plane; only the last
    coefficient may be negative (the sign of a two's complement integer).
    """
    parts = [(plane, abs(c), c < 0) for plane, c in zip(planes, coefficients, strict=True)]
    while len(parts) > 1:
        parts = [
            (module.register(parts[at][0]), *parts[at][1:])
            if at + 1 == len(parts)
            else _pair(module, parts[at], parts[at + 1])
            for at in range(0, len(parts), 2)
        ]
    wire, factor, minus = parts[0]
    if factor != 1 or minus:
        raise ValueError(f"coefficients {coefficients}")
    return wire


def _pair(
    module: Module, low: tuple[Wire, int, bool], high: tuple[Wire, int, bool]
) -> tuple[Wire, int, bool]:
    shift = (high[1] // low[1]).bit_length() - 1
    return module.register(module.shifted_sum(low[0], high[0], shift, high[2])), low[1], False
