"""What a simulation finds wrong with a kernel."""

from dataclasses import dataclass, field
from enum import StrEnum

from nybble.dialects.errors import NybbleError


class Kind(StrEnum):
    """The kinds of findings; each can be left out of a simulation."""

    RACE = "race"
    BOUNDS = "out-of-bounds"
    ALIGNMENT = "misaligned"
    UNINITIALIZED = "uninitialized"
    ASYNC = "asynchronous"
    DIVERGENCE = "divergence"
    DEADLOCK = "deadlock"
    PROXY = "proxy"
    DIVISION = "division"


class SimulationError(NybbleError):
    """A kernel that a simulation found wrong."""


@dataclass
class Finding:
    """What is wrong at a line of the PTX, and how often. other: the line of the other access."""

    kind: Kind
    line: int
    message: str
    other: int | None = None
    count: int = 1

    def __str__(self) -> str:
        more = f" ({self.count} times)" if self.count > 1 else ""
        return f"line {self.line}: {self.kind}: {self.message}{more}"


@dataclass
class Findings:
    """What was found, each kind once for each pair of lines."""

    checked: frozenset[Kind] = frozenset(Kind)
    items: dict[tuple[Kind, int, int | None, str], Finding] = field(
        default_factory=dict[tuple[Kind, int, int | None, str], Finding]
    )

    def add(
        self, kind: Kind, line: int, message: str, other: int | None = None, what: str = ""
    ) -> None:
        """Write down a finding. what: tells findings of a kind at one line apart."""
        if kind not in self.checked:
            return
        key = (kind, line, other, what)
        if key in self.items:
            self.items[key].count += 1
        else:
            self.items[key] = Finding(kind, line, message, other)

    def listed(self) -> tuple[Finding, ...]:
        """All, in the order in which they were first found."""
        return tuple(self.items.values())
