"""nybble report: one HTML page about a compilation and its measurements."""

from pathlib import Path

import click

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.machine import cpu_flags
from nybble.costmodel.targets.reader import find_target, target_for_level
from nybble.tools.ask_model import CPU, check_target
from nybble.tools.files import write_output
from nybble.tools.model_options import isa_option, threads_option
from nybble.tools.report.gather import gather
from nybble.tools.report.page import Machine, page

NAME = "report.html"


@click.command(name="report")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="FILE", help=f"The page; default: {NAME} in DIR.")
@click.option(
    "--target",
    default=CPU,
    show_default=True,
    help="Whose roofline the kernels are placed on: as for explain.",
)
@isa_option
@threads_option
def command(
    folder: Path, output: str | None, target: str, isa: str | None, threads: int | None
) -> None:
    """Write one HTML page about what DIR holds: stages of `compile --dump-stages`, JSON reports of
    `explain MODEL`, of `bench kernels` and of `bench fpga`. It needs no network to be read."""
    check_target(target)
    level = levels.get(isa) if isa else levels.detect(cpu_flags())
    machine = target_for_level(level.name) if target == CPU else find_target(target)
    default = 1 if target == CPU else int(machine.cores.value)
    made = page(gather(folder), Machine(machine, threads or default))
    path = output or str(folder / NAME)
    write_output(path, made.encode())
    if output != "-":
        click.echo(path)
