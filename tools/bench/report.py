"""A finished measurement: JSON for machines, tables for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from nybble.tools.bench.machine import Host

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a printed table: its heading, the key of its rows, and how a value is written."""

    heading: str
    key: str
    pattern: str = "{}"

    def cell(self, row: Row) -> str:
        """The text of this column in a row; a missing value is a dash."""
        value = row.get(self.key)
        return "-" if value is None else self.pattern.format(value)


@dataclass(frozen=True)
class Report:
    """kind: "kernels" or "model"; rows: one per measured combination; notes: what was left out.

    facts: what else the JSON says, key -> value.
    """

    kind: str
    host: Host
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def as_json(self) -> str:
        """One JSON object."""
        content = {"kind": self.kind, "machine": self.host.as_json(), **self.facts}
        return json.dumps({**content, "rows": self.rows, "notes": self.notes}, indent=1) + "\n"

    def print(self, console: Console, columns: Sequence[Column]) -> None:
        """The machine, the rows as a table, and the notes."""
        machine = f"{self.host.cpu}, {self.host.threads} processors, {self.host.isa}"
        console.print(machine, markup=False, highlight=False)
        table = Table()
        for column in columns:
            table.add_column(column.heading, justify="right")
        for row in self.rows:
            table.add_row(*(column.cell(row) for column in columns))
        console.print(table)
        for note in self.notes:
            console.print(f"note: {note}", markup=False, highlight=False)
