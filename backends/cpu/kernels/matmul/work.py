"""One product that a dataflow may be asked about: what its predicate and its cost look at.

Beside each dataflow's lowering stand two functions of a `Work`: `refusal`, why the dataflow cannot
compute it (None if it can), and `cycles`, an estimate by which dataflows are compared.
"""

from collections.abc import Callable
from dataclasses import dataclass

from nybble.backends.cpu.isa import Isa
from nybble.dialects.errors import NybbleError
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


def refused(build: Callable[[], object]) -> str | None:
    """What `build` raises about its input, in one line; None if it raises nothing.

    A predicate that builds the kernel's own specification cannot disagree with the lowering.
    """
    try:
        build()
    except NybbleError as error:
        return error.message + (f" (accepted: {error.accepted})" if error.accepted else "")
    return None
