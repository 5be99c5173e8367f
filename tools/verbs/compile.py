"""nybble compile: a model or an MLIR file to an artifact."""

from pathlib import Path

import click

from nybble.frontend.weight_choice import AS_STORED, WeightChoice
from nybble.tools.diagnostics import Session
from nybble.tools.mlir_file import STAGE_NAMES
from nybble.tools.model_options import json_option, model_options
from nybble.tools.target import (
    ROWS,
    ChosenTarget,
    CompileRequest,
    compiles,
    serve,
    target_option,
)

_FOLDER = click.Path(path_type=Path)


@click.command(name="compile")
@click.argument("model")
@click.option("-o", "--output", type=_FOLDER, help="Directory to write.")
@target_option(compiles, "What to compile for")
@click.option("--dump-stages", type=_FOLDER, help="Directory for the IR of each stage.")
@click.option(
    "--compile-from",
    type=click.Choice(STAGE_NAMES),
    help="The stage that an MLIR file is at; default: operators.",
)
@click.option(
    "--compile-to", type=click.Choice(STAGE_NAMES), help="Stop at this stage and write its IR."
)
@click.option(
    "--schedules", metavar="DB", help="Sizes of loops that nybble tune chose, for this machine."
)
@click.option(
    "--prompt", type=click.IntRange(1), help="Target fpga: tokens of the text; default: 128."
)
@click.option(
    "--answer", type=click.IntRange(1), help="Target fpga: tokens to write; default: 512."
)
@click.option(
    "--chain",
    is_flag=True,
    help="Target fpga: all operators of a function of an MLIR file as one kernel.",
)
@click.option(
    "--emit", type=click.Choice(["cuda"]), help="Also write the kernels of a GPU as CUDA C++."
)
@json_option
@model_options
@click.pass_obj
def command(
    session: Session,
    model: str,
    output: Path | None,
    target: ChosenTarget,
    dump_stages: Path | None,
    compile_from: str | None,
    compile_to: str | None,
    schedules: str | None,
    prompt: int | None,
    answer: int | None,
    chain: bool,
    emit: str | None,
    json_file: str | None,
    activations: str | None,
    kv: str | None,
    attention: str,
    context: int | None,
    isa: str | None,
    threads: int | None,
    weights: WeightChoice,
) -> None:
    """Compile MODEL (alias, GGUF file, Hugging Face folder) or an MLIR file into a directory."""
    given = {
        "chain": chain, "emit": emit, "dump-stages": dump_stages, "schedules": schedules,
        "activations": activations, "kv": kv, "prompt": prompt, "answer": answer,
        "attention": attention or None, "context": context, "isa": isa, "threads": threads,
        "weights": None if weights == AS_STORED else weights,
    }  # fmt: skip
    request = CompileRequest(
        model, output, target, compile_from, compile_to, json_file, session, given
    )
    serve(ROWS[target.name].compiles, request)
    if output is not None and json_file is None:
        click.echo(f"wrote {output}")
