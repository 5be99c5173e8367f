"""How long tensor cores take for the matrix instructions of a simulation: a model.

Rates are those of `Arch`: multiply-adds of 16-bit floats in a cycle of a multiprocessor, and what
other types take of that time; `wgmma` is dense at 2048. Of `lmma`, that no hardware has, they are
those of `gpu.lookup`. Nothing else of a kernel is counted.
"""

import re
from collections.abc import Mapping

from nybble.backends.gpu.arch import Arch
from nybble.backends.gpu.lookup import find_lmma

WGMMA_PRODUCTS = 2048.0
_SHAPE = re.compile(r"\.m(\d+)n(\d+)k(\d+)\b")
_EFFORT = (("b1", 1 / 16), ("s8", 0.5), ("u8", 0.5), ("e4m3", 0.5), ("e5m2", 0.5), ("s4", 0.25))
"""The time of a product of a type, of that of 16-bit floats."""


def tensor_cycles(counts: Mapping[str, int], arch: Arch) -> float:
    """Cycles of one multiprocessor for so many of each instruction (`Report.mma`)."""
    return sum(count * cycles_of(name, arch) for name, count in counts.items())


def cycles_of(name: str, arch: Arch) -> float:
    """Cycles of one matrix instruction, by a warp or a group of warps."""
    lookup = find_lmma(name)
    if lookup is not None:
        return lookup.cycles
    shape = _SHAPE.search(name)
    if shape is None:
        return 0.0
    m, n, k = (int(one) for one in shape.groups())
    kinds = name.split(".")
    effort = next((one for kind, one in _EFFORT if kind in kinds), 1.0)
    rate = WGMMA_PRODUCTS if name.startswith("wgmma") else float(arch.products)
    return m * n * k * effort / rate
