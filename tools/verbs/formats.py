"""nybble formats: the number formats there are."""

import json

import click
from rich.console import Console
from rich.table import Table

from nybble.backends.cpu.weights import weight_kind
from nybble.dialects.lowbit import formats
from nybble.tools.files import write_output


def cpu_dataflows(description: formats.Format) -> list[str]:
    """The dataflows by which the CPU backend multiplies weights of a format."""
    try:
        weight_kind(description)
    except formats.FormatError:
        return []
    return ["int_dot", "dequantize"] if description.has_codes else ["dequantize"]


def rows() -> list[dict[str, object]]:
    """One row per short name."""
    return [
        {
            "name": name,
            "bits_per_weight": round(formats.get(name).bits_per_weight, 4),
            "dataflows": {"cpu": cpu_dataflows(formats.get(name))},
            "spelling": formats.get(name).spelling,
        }
        for name in formats.names()
    ]


@click.command(name="formats")
@click.option("--json", "json_file", metavar="FILE", help="Write JSON; - is stdout.")
def command(json_file: str | None) -> None:
    """List the number formats: name, stored bits per weight, dataflows, spelling."""
    if json_file is not None:
        write_output(json_file, (json.dumps(rows()) + "\n").encode())
        return
    table = Table("format", "bits/weight", "cpu", "spelling")
    for row in rows():
        flows = row["dataflows"]
        assert isinstance(flows, dict)
        shown = ", ".join(flows["cpu"]) or "-"
        table.add_row(str(row["name"]), str(row["bits_per_weight"]), shown, str(row["spelling"]))
    Console().print(table)
