"""One product that a dataflow may be asked about: what its predicate and its cost look at.

Beside each dataflow's lowering stand two functions of a `Work`: `refusal`, why the dataflow cannot
compute it (None if it can), and `cycles`, an estimate by which dataflows are compared.
"""

from dataclasses import dataclass

from nybble.backends.cpu.isa import Isa
from nybble.dialects.lowbit.formats import Format


@dataclass(frozen=True)
class Work:
    """A weight of `description` [rows, cols] times `tokens` rows of activations.

    activations: the mode of `select-dataflow`: how exact the activations must stay.
    """

    description: Format
    rows: int
    cols: int
    tokens: int
    activations: str
    isa: Isa
