"""How an element with activations in registers makes the sum of a row over a tile."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from nybble.backends.fpga.rtl.emit import Module, Wire
from nybble.backends.fpga.rtl.spec import PeSpec


@dataclass(frozen=True)
class Products(ABC):
    """One way; latency: cycles from activations and codes to the sum of a tile.

    offset: whether a multiple of the sum of the activations is subtracted, which must come
    `offset_latency` cycles after the weights were taken. cycles: that weights are worked on; their
    number, from 0, is given to the rows as an offset would be.
    """

    spec: PeSpec
    latency: int
    offset: bool = False
    cycles: int = 1

    @property
    def offset_latency(self) -> int:
        """See above: one cycle for registers in front, and all but the last of ours."""
        return self.latency

    @property
    def parts(self) -> list[Module]:
        """Modules that rows have copies of."""
        return []

    @abstractmethod
    def tile(
        self, module: Module, activations: list[Wire], weights: Wire, given: Wire | None
    ) -> Wire:
        """The sum over activations of activation times weight. given: see `offset`, `cycles`."""
