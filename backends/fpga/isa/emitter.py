"""A stream in the making: who reads and writes what decides which units wait for which.

Between two units tokens are taken in the order in which they were released. An instruction that
needs another unit's earlier one waits for a token of it, unless it, or one before it, has waited
for that one or a later one already; so the k-th wait is always for the k-th release.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nybble.backends.fpga.isa.encoding import Instruction
from nybble.backends.fpga.isa.instructions import ACTIONS, INSTRUCTIONS


@dataclass(frozen=True)
class Access:
    """An interval [low, high) of a buffer or of memory."""

    buffer: str
    low: int
    high: int


@dataclass(frozen=True)
class _Seen:
    access: Access
    unit: str
    index: int
    writes: bool


@dataclass
class _Draft:
    unit: str
    values: Mapping[str, int]
    wait: set[str] = field(default_factory=set[str])
    release: set[str] = field(default_factory=set[str])


@dataclass
class Emitter:
    """Collects instructions; `sys` ones are barriers, before which all others end."""

    _drafts: list[_Draft] = field(default_factory=list[_Draft])
    _seen: dict[str, list[_Seen]] = field(default_factory=dict[str, list[_Seen]])
    _waited: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    def emit(
        self,
        unit: str,
        values: Mapping[str, int],
        reads: Sequence[Access] = (),
        writes: Sequence[Access] = (),
    ) -> None:
        """Append an instruction with its waits, and the releases that they ask of earlier ones."""
        index = len(self._drafts)
        draft = _Draft(unit, values)
        self._drafts.append(draft)
        latest: dict[str, int] = {}
        for access, is_write in [(one, False) for one in reads] + [(one, True) for one in writes]:
            for seen in self._seen.get(access.buffer, ()):
                if seen.unit != unit and (is_write or seen.writes) and _overlap(seen, access):
                    latest[seen.unit] = max(latest.get(seen.unit, -1), seen.index)
        for other, needed in latest.items():
            if needed > self._waited.get((other, unit), -1):
                self._waited[other, unit] = needed
                self._drafts[needed].release.add(unit)
                draft.wait.add(other)
        for access in reads:
            self._note(_Seen(access, unit, index, False))
        for access in writes:
            self._note(_Seen(access, unit, index, True))

    def _note(self, new: _Seen) -> None:
        """Remember an access; a write replaces what it covers, a read the same unit's reads."""
        kept = [
            old
            for old in self._seen.get(new.access.buffer, ())
            if not (
                new.access.low <= old.access.low
                and old.access.high <= new.access.high
                and (new.writes or (old.unit == new.unit and not old.writes))
            )
        ]
        self._seen[new.access.buffer] = [*kept, new]

    def barrier(self, values: Mapping[str, int]) -> None:
        """Append a `sys` instruction: the machine has done all before it, and none after it."""
        self._drafts.append(_Draft("sys", values))
        self._seen.clear()

    def instructions(self) -> tuple[Instruction, ...]:
        """The stream."""
        return tuple(
            Instruction(one.unit, dict(one.values), frozenset(one.wait), frozenset(one.release))
            for one in self._drafts
        )


@dataclass
class Counter(Emitter):
    """Counts bytes instead: those of the loop's body, with its `loop`, and all others.

    An `end` counts nothing: it is there only where layers share their instructions.
    """

    body: int = 0
    rest: int = 0
    _inside: bool = False

    def emit(
        self,
        unit: str,
        values: Mapping[str, int],
        reads: Sequence[Access] = (),
        writes: Sequence[Access] = (),
    ) -> None:
        """Count an instruction."""
        self._add(INSTRUCTIONS[unit].bytes)

    def barrier(self, values: Mapping[str, int]) -> None:
        """Count a `sys` instruction, which may begin or end the loop."""
        action = ACTIONS[values["action"]]
        if action == "end":
            self._inside = False
            return
        self._inside = self._inside or action == "loop"
        self._add(INSTRUCTIONS["sys"].bytes)

    def _add(self, count: int) -> None:
        if self._inside:
            self.body += count
        else:
            self.rest += count


def _overlap(seen: _Seen, access: Access) -> bool:
    return seen.access.low < access.high and access.low < seen.access.high
