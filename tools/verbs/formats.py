"""nybble formats: the number formats there are."""

import json

import click
from rich.console import Console
from rich.table import Table

from nybble.backends.cpu.weights import dataflows
from nybble.dialects.lowbit import formats
from nybble.tools.files import write_output

# What a pattern of names stands for is shown by a few of its names.
EXAMPLES = ("w8g32", "w4g128", "w4g32z", "w4g32m", "w3g64", "w2g128", "w1g128", "bitmod4g64")


def rows() -> list[dict[str, object]]:
    """One row per short name, then some of the names that patterns give."""
    described = [(name, formats.get(name)) for name in (*formats.names(), *EXAMPLES)]
    return [
        {
            "name": name,
            "bits_per_weight": round(one.bits_per_weight, 4),
            "dataflows": {"cpu": list(dataflows(one))},
            "spelling": one.spelling,
        }
        for name, one in described
    ]


def shown_flows(row: dict[str, object]) -> str:
    """The dataflows of a row as a list of words."""
    flows = row["dataflows"]
    assert isinstance(flows, dict)
    return ", ".join(flows["cpu"]) or "-"


def markdown() -> str:
    """The support matrix of the documentation."""
    lines = ["| format | bits per weight | `cpu` |", "|---|---|---|"]
    lines += [f"| `{r['name']}` | {r['bits_per_weight']} | {shown_flows(r)} |" for r in rows()]
    return "\n".join(lines) + "\n"


@click.command(name="formats")
@click.option("--json", "json_file", metavar="FILE", help="Write JSON; - is stdout.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the support matrix.")
def command(json_file: str | None, as_markdown: bool) -> None:
    """List the number formats: name, stored bits per weight, dataflows, spelling."""
    if json_file is not None:
        write_output(json_file, (json.dumps(rows()) + "\n").encode())
        return
    if as_markdown:
        click.echo(markdown(), nl=False)
        return
    table = Table("format", "bits/weight", "cpu", "spelling")
    for row in rows():
        name, bits, spelling = (str(row[key]) for key in ("name", "bits_per_weight", "spelling"))
        table.add_row(name, bits, shown_flows(row), spelling)
    Console().print(table)
