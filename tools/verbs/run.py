"""nybble run: the functions of an MLIR file, or a compiled model, on given or random inputs."""

import json
from pathlib import Path

import click

from nybble.backends.cpu.artifact import MANIFEST
from nybble.dialects.errors import NybbleError
from nybble.tools.files import write_output
from nybble.tools.run_file import FileRun, run_file
from nybble.tools.run_model import run_model


@click.command(name="run")
@click.argument("what", type=click.Path(path_type=Path))
@click.option("--function", help="Function of an MLIR file; default: its only one.")
@click.option("--tokens", type=click.IntRange(1), default=1, show_default=True, help="Token rows.")
@click.option("--ids", help="Token ids for a model, separated by commas; default: random ones.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random inputs.")
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--isa", help="Instruction-set level; default: this machine's.")
@click.option("--activations", type=click.Choice(["i8", "f32"]), default="i8", show_default=True)
@click.option("--json", "json_file", metavar="FILE", help="Write a JSON report; - is stdout.")
def command(
    what: Path,
    function: str | None,
    tokens: int,
    ids: str | None,
    seed: int,
    threads: int,
    isa: str | None,
    activations: str,
    json_file: str | None,
) -> None:
    """Run WHAT: a directory of `nybble compile`, or a .mlir file at the operators stage, whose
    results are compared with the reference."""
    if (what / MANIFEST).is_file():
        report = run_model(what, ids, tokens, seed, threads)
    elif what.suffix == ".mlir":
        report = run_file(what, FileRun(function, tokens, seed, threads, isa, activations))
    else:
        raise NybbleError(f"cannot run {what}", accepted="a compiled directory or a .mlir file")
    if json_file is not None:
        write_output(json_file, (json.dumps(report) + "\n").encode())
        return
    for name, value in report.items():
        click.echo(f"{name}: {value}")
