"""nybble run: the functions of an MLIR file, or a compiled model, on given or random inputs."""

import json
from pathlib import Path

import click

from nybble.backends.cpu.artifact import MANIFEST
from nybble.dialects.errors import NybbleError
from nybble.tools.diagnostics import Session, UsageError
from nybble.tools.files import STANDARD_STREAM, write_output
from nybble.tools.mlir_file import SUFFIX
from nybble.tools.model_options import activations_option, isa_option, json_option, threads_option
from nybble.tools.models import check_isa
from nybble.tools.run_file import FileRun, run_file
from nybble.tools.run_model import run_model

EXIT_DISAGREES = 1


@click.command(name="run")
@click.argument("what")
@click.option("--function", help="Function of an MLIR file; default: its only one.")
@click.option("--tokens", type=click.IntRange(1), default=1, show_default=True, help="Token rows.")
@click.option(
    "--position",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the first row of an MLIR function.",
)
@click.option("--ids", help="Token ids for a model, separated by commas; default: random ones.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of random inputs."
)
@activations_option
@isa_option
@threads_option
@json_option
@click.pass_obj
def command(
    session: Session,
    what: str,
    function: str | None,
    tokens: int,
    position: int,
    ids: str | None,
    seed: int,
    activations: str | None,
    isa: str | None,
    threads: int | None,
    json_file: str | None,
) -> int:
    """Run WHAT: a directory of `nybble compile`, or a .mlir file at the operators stage (- is
    standard input), whose results are compared with the reference. Exits with 1 if they differ."""
    if (Path(what) / MANIFEST).is_file():
        given = {"function": function, "isa": isa, "activations": activations}
        _refuse(given, "a compiled model")
        report = run_model(Path(what), ids, tokens, seed, threads)
    elif Path(what).suffix == SUFFIX or what == STANDARD_STREAM:
        _refuse({"ids": ids}, "an MLIR file")
        check_isa(isa)
        mode = activations or "i8"
        run = FileRun(function, tokens, position, seed, threads or 1, isa, mode)
        report = run_file(what, run, session)
    else:
        raise NybbleError(f"cannot run {what}", accepted="a compiled directory or a .mlir file")
    if json_file is not None:
        write_output(json_file, (json.dumps(report) + "\n").encode())
    else:
        for name, value in report.items():
            click.echo(f"{name}: {value}")
    return 0 if report.get("agrees", True) else EXIT_DISAGREES


def _refuse(options: dict[str, str | None], what: str) -> None:
    """Raise UsageError for an option that says nothing about what is run."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"--{name} means nothing for {what}")
