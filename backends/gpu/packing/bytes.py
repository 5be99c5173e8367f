"""How registers of bytes are put together of the bits of codes, for products of 8-bit integers.

The placement that serves 16-bit floats serves bytes: of two neighbours that lie 16 bits apart, and
columns two on that lie 8 bits further, one mask picks four codes of a row at once. The bytes of
that word are of columns 0, 2, 1 and 3 of a lane's four, and so activations are stored.
"""

from dataclasses import dataclass

from nybble.backends.gpu.packing.fields import Take, taken
from nybble.backends.gpu.packing.placement import Placement

BYTES = 0x101


@dataclass(frozen=True)
class Octets:
    """Codes of up to 8 bits, each in a byte."""

    placement: Placement

    @property
    def order(self) -> tuple[int, int, int, int]:
        """Which of a lane's four columns each byte is of."""
        return (0, 2, 1, 3) if self.placement.apart else (0, 1, 2, 3)

    def takes(self, fragment: int, upper: int) -> list[Take]:
        """What the codes of a row are put together of: row g, or g + 8 if `upper`."""
        found = taken(self.placement, fragment, upper, 0, self.placement.bits, 0)
        return [Take(one.word, one.shift, one.mask * BYTES) for one in found]
