"""Sparse products have no cost before their matrices are there.

What they do depends on how many entries meet, which no type says. The CPU counts them when it has
the matrices and predicts from that (`backends/cpu/spgemm/routing`); a figure here would be a guess.
"""

from typing import NoReturn

from xdsl.ir import Operation

from nybble.costmodel.analytic.work import CostOptions
from nybble.costmodel.targets.target import Target
from nybble.dialects.errors import NybbleError


class UnknownEntriesError(NybbleError):
    """A cost that depends on the entries of a matrix."""


def entries_unknown(op: Operation, target: Target, options: CostOptions) -> NoReturn:
    """Raises UnknownEntriesError: see the module."""
    raise UnknownEntriesError(
        f"the cost of '{op.name}' depends on the entries of its operands",
        accepted="operations on dense or low-bit tensors",
    )
