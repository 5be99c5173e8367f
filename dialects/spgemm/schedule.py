"""A schedule of a row-wise product: what SMASH's versions differ in, as data.

V1 deals rows out in turn and hashes by the high-order bits of the column, which keeps rows in order
and lets neighbours collide; V2 lets harts take the next row when they are free and hashes by
low-order bits; V3 fragments the scratchpad, and collects entries without gaps for DMA to move
(SMASH, arXiv 2105.14156).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nybble.dialects.spgemm.errors import SparseError

CHOICES: Mapping[str, tuple[str, ...]] = {
    "rows": ("static", "token"),
    "hash": ("high", "low"),
    "accumulator": ("table", "fragments", "dense", "masked"),
    "transfer": ("loop", "dma"),
}
"""rows: who computes a row. hash: bits of a place that choose its slot. transfer: whether rows of
the right matrix are loaded where they lie or brought into the scratchpad by DMA. accumulator:
"table" is a hash table of all harts; "fragments" gives each hart a part of the scratchpad, with a
pointer for every column and entries without gaps; "dense" is an array of every place, of all harts.
"masked" is "fragments" whose entries are those of a mask, and no others.
"""
BITS = range(4, 25)


@dataclass(frozen=True)
class Schedule:
    """How a program is laid out; see `CHOICES`.

    bits: log2 of the slots of a table, the columns of a fragment, or the places of an array.
    """

    rows: str = "token"
    hash: str = "low"
    accumulator: str = "table"
    transfer: str = "loop"
    bits: int = 16

    def __post_init__(self) -> None:
        for name, accepted in CHOICES.items():
            if getattr(self, name) not in accepted:
                raise SparseError(
                    f"unknown {name} '{getattr(self, name)}'", accepted=", ".join(accepted)
                )
        if self.bits not in BITS:
            raise SparseError(
                f"{self.bits} bits of slots", accepted=f"{BITS.start} to {BITS.stop - 1}"
            )

    @property
    def slots(self) -> int:
        """Slots, columns or places."""
        return 1 << self.bits

    def with_bits(self, bits: int) -> "Schedule":
        """The same schedule with another number of slots."""
        return replace(self, bits=bits)


PRESETS: Mapping[str, Schedule] = {
    "v1": Schedule("static", "high", "table", "loop"),
    "v2": Schedule("token", "low", "table", "loop"),
    "v3": Schedule("token", "low", "fragments", "dma"),
}
"""SMASH's three versions."""
