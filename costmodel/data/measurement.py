"""One measured kernel: what ran, how it was scheduled, on what, and how long it took."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

SCHEMA = 1
"""Version of what features read of a workload and its options; a part of every key."""


def digest(*parts: str) -> str:
    """Hex digits that stand for some texts."""
    return sha256("\0".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Workload:
    """A kernel without its schedule, and how much of it a call does.

    text: a module with the one kernel in canonical form (see `canonical`). tokens: rows of a call.
    shares: equal parts that the rows of weights are cut into, of which a call does one, as a thread
    of so many does. cached: keys of attention that come before the rows.
    """

    text: str
    tokens: int
    shares: int = 1
    cached: int = 0

    @cached_property
    def name(self) -> str:
        """A digest of all of it."""
        return digest(self.text, str(self.tokens), str(self.shares), str(self.cached))

    @cached_property
    def base(self) -> str:
        """A digest of the kernel alone: what its calls of different sizes have in common."""
        return digest(self.text)


@dataclass(frozen=True)
class Stand:
    """What a measurement holds for: the machine, the compiler and what it was made of.

    target: the machine's fingerprint. compiler: versions of all that makes code.
    """

    target: str
    compiler: str


@dataclass(frozen=True)
class Measurement:
    """A workload under a schedule.

    options: every size that the schedule chose. rounds: seconds, the least of each round; empty
    after a failure. code: counts of the compiled kernel (instructions, spills, registers).
    failure: what went wrong, None if nothing.
    """

    workload: Workload
    options: Mapping[str, int]
    stand: Stand
    rounds: tuple[float, ...] = ()
    code: Mapping[str, int] = field(default_factory=dict[str, int])
    failure: str | None = None

    @cached_property
    def key(self) -> str:
        """A digest of all that the measured time depends on."""
        return key_of(self.workload, self.options, self.stand)

    @property
    def seconds(self) -> float:
        """The least time; infinite after a failure."""
        return min(self.rounds, default=float("inf"))


def key_of(workload: Workload, options: Mapping[str, int], stand: Stand) -> str:
    """The key of a measurement that may not have been made yet."""
    return digest(workload.name, spelled(options), stand.target, stand.compiler, f"schema {SCHEMA}")


def spelled(options: Mapping[str, int]) -> str:
    """Options as one text: equal for equal options."""
    return json.dumps(dict(sorted(options.items())), separators=(",", ":"))
