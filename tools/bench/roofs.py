"""The least time that a machine needs for a piece of work, from rates measured beside it.

Only what cannot be avoided counts: every stored byte of the weights is read once, every weight is
multiplied once with every token. A kernel above its roof is wrong, or its data was nearer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

COMPUTE = ("amx_int8", "int8", "f32")
"""Roofs of multiplication for int8 products, the first that a machine has being its highest."""


@dataclass(frozen=True)
class Work:
    """bytes: of weights as stored; operations: multiplications and additions."""

    bytes: float
    operations: float


@dataclass(frozen=True)
class Roof:
    """What limits a piece of work, and the seconds it takes at that limit."""

    name: str
    seconds: float


def roof(work: Work, memory: str, rates: Mapping[str, float]) -> Roof:
    """The higher of the times that memory and multiplication need.

    memory: the name of the rate at which weights can be read; rates: name -> bytes or operations
    a second, one of COMPUTE among them.
    """
    compute = next(name for name in COMPUTE if name in rates)
    times = {memory: work.bytes / rates[memory], compute: work.operations / rates[compute]}
    name = max(times, key=times.__getitem__)
    return Roof(name, times[name])
