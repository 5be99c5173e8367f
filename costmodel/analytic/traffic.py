"""Bytes that pass between the levels of a memory, by what fits which level.

A stream of bytes is read (or written) in passes. What comes back before `between` other bytes have
gone by is still in a level of that size, so the levels beyond it see the first pass alone; and
what was touched `age` bytes ago is there from the start. That is the reuse distance of a
fully associative cache with least recent use (Mattson et al., IBM Systems Journal 9(2), 1970), for
whole operands instead of single lines.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from nybble.costmodel.analytic.cost import Tally, tally
from nybble.costmodel.targets.target import Level

Direction = Literal["read", "written"]


@dataclass(frozen=True)
class Stream:
    """One operand on its way.

    value: whose bytes they are (an SSA value), None if nobody else asks for them. first: bytes of
    the first pass; again: of each further one. passes: how many there are. between: bytes that a
    core touches from one pass to the next. age: bytes touched since the operand was, or until it
    will be; None for long ago.
    """

    direction: Direction
    first: int
    value: object = None
    again: int = 0
    passes: int = 1
    between: int = 0
    age: int | None = None

    def at_hand(self) -> "Stream":
        """The same where producer and consumer are one kernel: it never leaves the core."""
        return replace(self, age=0, between=0)

    def __mul__(self, times: int) -> "Stream":
        """`times` equal streams of different operands, one after the other."""
        return replace(self, first=self.first * times, again=self.again * times)


def traffic(stream: Stream, memory: tuple[Level, ...], cores: int) -> Tally:
    """Level -> bytes of a stream that it serves, with the work split over `cores` cores."""
    repeated = stream.again * (stream.passes - 1)
    found = {memory[0].name: stream.first + repeated}
    for nearer, level in pairwise(memory):
        own = int(nearer.size.value)
        all_of_them = own if nearer.shared else own * cores
        misses = stream.age is None or stream.age > all_of_them
        found[level.name] = stream.first * misses + repeated * (stream.between > own)
    return tally(found)
