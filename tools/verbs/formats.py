"""nybble formats: the number formats there are."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import click
from rich.console import Console
from rich.table import Table

from nybble.backends.cpu.dataflows import covering
from nybble.backends.cpu.isa import LEVELS
from nybble.backends.gpu.arch import ARCHS, IMAGINED
from nybble.backends.gpu.dataflows import covering as covering_on_gpu
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import Format
from nybble.tools.files import write_output

# What a pattern of names stands for is shown by a few of its names.
EXAMPLES = ("w8g32", "w4g128", "w4g32z", "w4g32m", "w3g64", "w2g128", "w1g128", "bitmod4g64")


ROWS = 70
"""Rows of the weight that the predicates are asked about, a multiple of no tile."""
COLUMNS = 256


@dataclass(frozen=True)
class Row:
    """A format and the dataflows that multiply it, by instruction-set level and architecture."""

    name: str
    description: Format
    dataflows: dict[str, list[str]]
    on_gpu: dict[str, list[str]]

    def shown(self, level: str) -> str:
        """The dataflows on a level or an architecture as a list of words."""
        return ", ".join({**self.dataflows, **self.on_gpu}[level]) or "-"

    def report(self) -> dict[str, object]:
        """The keys of `--json`."""
        return {
            "name": self.name,
            "bits_per_weight": round(self.description.bits_per_weight, 4),
            "dataflows": self.dataflows,
            "dataflows_gpu": self.on_gpu,
            "spelling": self.description.spelling,
        }


def rows() -> list[Row]:
    """One row per short name, then some of the names that patterns give."""
    return [row(name) for name in (*formats.names(), *EXAMPLES)]


def row(name: str) -> Row:
    """What the predicates say of one format, on every level."""
    description = formats.get(name)
    shape = example_shape(description)
    flows = {isa.name: covering(description, isa, shape) for isa in LEVELS.values()}
    on_gpu = {arch: covering_on_gpu(description, arch, shape) for arch in (*ARCHS, *IMAGINED)}
    return Row(name, description, flows, on_gpu)


def example_shape(description: Format) -> tuple[int, int]:
    """Rows and columns of a small weight that a format can have."""
    sparse = description.sparsity
    tall = lcm(getattr(sparse, "rows", 1), getattr(sparse, "block", 1))
    return ROWS * tall, lcm(COLUMNS, description.block)


def level_groups(table: Sequence[Row]) -> list[list[str]]:
    """Levels, and architectures, that have the same dataflows for every format, in their order."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for level in (*LEVELS, *ARCHS, *IMAGINED):
        cells = tuple(one.shown(level) for one in table)
        groups.setdefault(cells, []).append(level)
    return list(groups.values())


def markdown() -> str:
    """The support matrix of the documentation, a column for each group of like levels."""
    table = rows()
    groups = level_groups(table)
    heads = [", ".join(f"`{level}`" for level in group) for group in groups]
    lines = [
        f"| format | bits per weight | {' | '.join(heads)} |",
        "|---|---" + "|---" * len(groups) + "|",
    ]
    for one in table:
        cells = " | ".join(one.shown(group[0]) for group in groups)
        lines.append(f"| `{one.name}` | {round(one.description.bits_per_weight, 4)} | {cells} |")
    return "\n".join(lines) + "\n"


@click.command(name="formats")
@click.option("--json", "json_file", metavar="FILE", help="Write JSON; - is stdout.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the support matrix.")
def command(json_file: str | None, as_markdown: bool) -> None:
    """List the number formats: name, stored bits per weight, dataflows, spelling."""
    if json_file is not None:
        write_output(json_file, (json.dumps([one.report() for one in rows()]) + "\n").encode())
        return
    if as_markdown:
        click.echo(markdown(), nl=False)
        return
    found = rows()
    groups = level_groups(found)
    table = Table("format", "bits/weight", *(" ".join(group) for group in groups), "spelling")
    for one in found:
        cells = [one.shown(group[0]) for group in groups]
        bits = str(round(one.description.bits_per_weight, 4))
        table.add_row(one.name, bits, *cells, one.description.spelling)
    Console().print(table)
