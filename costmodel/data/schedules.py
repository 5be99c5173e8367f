"""A database of schedules: what a search chose for each kernel, for later compilations.

It is a JSON file, and holds for one machine and one compiler. An entry is applied to a kernel with
the same canonical IR and room for as many tokens, if its sizes are still legal; what does not fit
is said and left alone.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nybble.costmodel.data.measurement import Stand, digest
from nybble.dialects.errors import NybbleError

VERSION = 1


class SchedulesError(NybbleError):
    """A database of schedules that cannot be read or written."""


@dataclass(frozen=True)
class Entry:
    """One choice. kernel: its name; because: why, for people."""

    kernel: str
    dataflow: str
    options: dict[str, int]
    because: str


@dataclass(frozen=True)
class Schedules:
    """Key (see `key_of`) -> entry, and what they hold for.

    costs: what dataflows were compared by; see `select-dataflow`.
    """

    stand: Stand
    entries: Mapping[str, Entry] = field(default_factory=dict[str, Entry])
    costs: str = "estimated"

    def mismatch(self, stand: Stand) -> str | None:
        """Why none of it may be applied at a stand; None if it may."""
        if self.stand.target != stand.target:
            return f"made for '{self.stand.target}', this is '{stand.target}'"
        if self.stand.compiler != stand.compiler:
            return f"made by {self.stand.compiler}, this is {stand.compiler}"
        return None


def key_of(text: str, tokens: int) -> str:
    """The key of a kernel in canonical form with room for so many tokens."""
    return digest(text, str(tokens))


def write_schedules(found: Schedules, path: Path) -> None:
    """Write a database whole or not at all; raises SchedulesError."""
    content = {
        "version": VERSION,
        "stand": asdict(found.stand),
        "costs": found.costs,
        "entries": {key: asdict(one) for key, one in sorted(found.entries.items())},
    }
    draft = path.with_name(f".{path.name}.tmp")
    try:
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as fault:
        draft.unlink(missing_ok=True)
        raise SchedulesError(f"cannot write {path}: {fault.strerror}") from fault


def read_schedules(path: Path) -> Schedules:
    """A database; raises SchedulesError."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise SchedulesError(
            f"cannot read {path}: {fault.strerror}", accepted="what nybble tune writes"
        ) from fault
    except ValueError as fault:
        raise SchedulesError(
            f"{path} is no database of schedules", accepted="what nybble tune writes"
        ) from fault
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise SchedulesError(
            f"{path} is no database of schedules of version {VERSION}",
            accepted="what nybble tune writes",
        )
    try:
        entries = {key: Entry(**one) for key, one in content["entries"].items()}
        costs = content.get("costs", "estimated")
        if not isinstance(costs, str):
            raise TypeError(f"costs {costs!r}")
        return Schedules(Stand(**content["stand"]), entries, costs)
    except (KeyError, TypeError, AttributeError) as fault:
        raise SchedulesError(f"{path} is damaged: {fault}") from fault
