"""nybble compile: a model or an MLIR file to an artifact."""

from dataclasses import replace
from pathlib import Path

import click

from nybble.dialects.errors import NybbleError, UnknownNameError
from nybble.tools.kernels_file import compile_file
from nybble.tools.models import choose, model_options

TARGETS = ("cpu",)


def check_target(target: str) -> None:
    """Raise unless the target is one that code is generated for."""
    if target not in TARGETS:
        raise UnknownNameError(f"unknown target '{target}'", accepted=", ".join(TARGETS))


@click.command(name="compile")
@click.argument("model")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Directory.")
@click.option("--target", default="cpu", show_default=True)
@click.option("--dump-stages", type=click.Path(path_type=Path), help="Write the IR of each stage.")
@click.option("--compile-from", metavar="STAGE", help="The stage that an MLIR file is at.")
@click.option("--compile-to", metavar="STAGE", help="Stop an MLIR file there and write its IR.")
@model_options
def command(
    model: str,
    output: Path,
    target: str,
    dump_stages: Path | None,
    compile_from: str | None,
    compile_to: str | None,
    activations: str,
    kv: str | None,
    context: int,
    isa: str | None,
    threads: int | None,
) -> None:
    """Compile MODEL (alias, GGUF file, Hugging Face folder) or an MLIR file into a directory."""
    check_target(target)
    choice = choose(model, activations, kv, context, isa)
    options = replace(choice.options, dump=dump_stages, threads=threads or choice.options.threads)
    if Path(model).suffix == ".mlir":
        compile_file(Path(model), output, options, compile_from, compile_to)
    elif compile_from or compile_to:
        raise NybbleError("only an MLIR file can start or end at a stage", accepted="FILE.mlir")
    else:
        replace(choice, options=options).compile_to(output)
    click.echo(f"wrote {output}")
