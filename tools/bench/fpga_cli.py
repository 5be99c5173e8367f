"""The command `nybble bench fpga`."""

import click

from nybble.tools.bench.options import parse_names
from nybble.tools.bench.publish import publish
from nybble.tools.models import circuit_cache, shown_progress


@click.command("fpga")
@click.option("--formats", default="", metavar="NAME,..", help="w1, w1.58, 2:4, ..; default: all.")
@click.option("--n", type=click.IntRange(1), default=4096, show_default=True, help="Outputs.")
@click.option(
    "--tiles", type=click.IntRange(1), default=4, show_default=True, help="Of activations."
)
@click.option("--lanes", type=click.IntRange(1), default=16, show_default=True, help="Tables.")
@click.option("--rows", type=click.IntRange(1), default=7, show_default=True, help="A cycle.")
@click.option("--baseline/--no-baseline", default=True, help="Synthesize multipliers (default).")
@click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON.")
def fpga_command(
    formats: str, n: int, tiles: int, lanes: int, rows: int, baseline: bool, json_file: str | None
) -> None:
    """Measure processing elements: cycles by Verilator, resources by Yosys."""
    from nybble.tools.bench.fpga import COLUMNS, FORMATS, FpgaOptions, bench_fpga, chosen

    names = chosen(parse_names(formats)) if formats else FORMATS
    options = FpgaOptions(names, n, tiles, lanes, rows, baseline)
    with shown_progress() as progress:
        report = bench_fpga(options, circuit_cache(), progress)
    publish(report, COLUMNS, json_file)
