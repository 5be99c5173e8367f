"""nybble tune: chooses the sizes of loops for every kernel of a model or a file."""

import time
from dataclasses import replace
from pathlib import Path

import click

from nybble.backends.llvm.workers import close_idle
from nybble.costmodel.data.schedules import write_schedules
from nybble.frontend.weight_choice import WeightChoice
from nybble.passes.targets import LEARNED
from nybble.tools.diagnostics import Session
from nybble.tools.mlir_file import FIRST, advance, is_mlir, read_module
from nybble.tools.model_options import model_options
from nybble.tools.models import choose, shown_progress
from nybble.tools.run_file import SCHEDULED
from nybble.tools.tuning import Choice, chooser, cost_model, database, tuned

TOP = 4


@click.command(name="tune")
@click.argument("model")
@click.option("-o", "--output", default="schedules.json", show_default=True, help="Database.")
@click.option("--cost-model", "trained", metavar="FILE", help="Default: the one of nybble.")
@click.option("--deterministic", is_flag=True, help="Trust the cost model and measure nothing.")
@click.option(
    "--top",
    type=click.IntRange(1, 100),
    default=TOP,
    show_default=True,
    help="Candidates of each kernel to measure.",
)
@model_options
@click.pass_obj
def command(
    session: Session,
    model: str,
    output: str,
    trained: str | None,
    deterministic: bool,
    top: int,
    activations: str | None,
    kv: str | None,
    attention: str,
    context: int | None,
    isa: str | None,
    threads: int | None,
    weights: WeightChoice,
) -> None:
    """Choose dataflows and schedules for the kernels of MODEL or FILE.mlir and write them to a
    database, which `nybble compile --schedules` reads."""
    learned = cost_model(trained)
    choice = choose(model, activations, kv, context, isa, threads, weights, attention)
    costs = LEARNED if trained is None else str(Path(trained).absolute())
    choice = replace(choice, options=replace(choice.options, costs=costs))
    start = time.monotonic()
    if is_mlir(model):
        module = read_module(model, FIRST, session)
        advance(module, FIRST, SCHEDULED, choice.options)
    else:
        with shown_progress() as progress:
            compiler = choice.compiler(progress)
            module = compiler.lower(compiler.graph(), SCHEDULED)
        close_idle()
    searching = time.monotonic()
    found = tuned(module, chooser(learned, choice.options), 0 if deterministic else top)
    write_schedules(database(found, costs), Path(output))
    for one in found:
        click.echo(line(one))
    changed = sum(one.changed for one in found)
    click.echo(
        f"wrote {output}: {changed} of {len(found)} kernels changed; import "
        f"{searching - start:.1f} s, search {time.monotonic() - searching:.1f} s"
    )


def line(one: Choice) -> str:
    """The printed form of a choice."""
    sizes = " ".join(f"{name}={value}" for name, value in one.entry.options.items())
    said = f"{one.gain:.0%} faster" if one.changed else "as it was"
    return f"{one.entry.kernel} {one.entry.dataflow}: {said}, {sizes} ({one.entry.because})"
