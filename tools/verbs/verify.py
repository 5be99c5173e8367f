"""nybble verify: generated code against the references, over random cases."""

import click

from nybble.tools.explain import OPERATORS
from nybble.tools.model_options import isa_option, json_option
from nybble.tools.target import (
    ROWS,
    ChosenTarget,
    VerifyRequest,
    serve,
    target_option,
    verifies,
)
from nybble.tools.verify.command import ATTENTION
from nybble.tools.verify.fpga_texts import FAMILIES


@click.command(name="verify")
@target_option(verifies, "Whose code, with commas between", several=True)
@isa_option
@click.option(
    "--op",
    type=click.Choice(list(dict.fromkeys([*OPERATORS, ATTENTION, *FAMILIES]))),
    help="CPU: a product (default) or attention; FPGA: any, by default products and all others.",
)
@click.option("--formats", help="Names, with commas between.  [default: all]")
@click.option("--dataflow", metavar="NAME", help="Default: all that take it.")
@click.option("--engines", help="Simulators of target spgemm.  [default: qemu,spike,rvsim]")
@click.option("--harts", help="Of target spgemm: numbers, with commas.  [default: an engine's own]")
@click.option("--cases", type=click.IntRange(1), default=200, show_default=True, help="How many.")
@click.option("--case", type=click.IntRange(0), help="Run this one alone.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(1), help="Processes; default: one for each processor.")
@json_option
def command(
    target: tuple[ChosenTarget, ...],
    isa: str | None,
    op: str | None,
    formats: str | None,
    dataflow: str | None,
    engines: str | None,
    harts: str | None,
    cases: int,
    case: int | None,
    seed: int,
    jobs: int | None,
    json_file: str | None,
) -> int:
    """Run random cases (formats, shapes, tokens, dataflows, epilogues, data) on generated code
    and compare them with the numpy reference. A level that this machine lacks is emulated. Exits
    with 1 if a case fails."""
    numbers = range(cases) if case is None else range(case, case + 1)
    given = {"isa": isa, "op": op, "formats": formats, "dataflow": dataflow, "jobs": jobs}
    given |= {"engines": engines, "harts": harts}
    request = VerifyRequest(target, numbers, seed, json_file, given)
    found = serve(ROWS[target[0].name].verifies, request)
    assert isinstance(found, int)
    return found
