"""nybble compile: a model or an MLIR file to an artifact."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from nybble.backends.cpu.artifact import MANIFEST
from nybble.frontend.weight_choice import WeightChoice
from nybble.tools.diagnostics import Session, UsageError
from nybble.tools.files import STANDARD_STREAM
from nybble.tools.folder import check_folder
from nybble.tools.gpu_file import GpuOptions, compile_gpu_file
from nybble.tools.kernels_file import compile_file
from nybble.tools.mlir_file import STAGE_NAMES, SUFFIX
from nybble.tools.model_options import model_options
from nybble.tools.models import ModelChoice, choose
from nybble.tools.target import ChosenTarget, target_option
from nybble.tools.tuning import usable

TARGETS = ("cpu",)
"""Those that models are compiled for."""
_FOLDER = click.Path(path_type=Path)


@click.command(name="compile")
@click.argument("model")
@click.option("-o", "--output", required=True, type=_FOLDER, help="Directory to write.")
@target_option
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
@model_options
@click.pass_obj
def command(
    session: Session,
    model: str,
    output: Path,
    target: ChosenTarget,
    dump_stages: Path | None,
    compile_from: str | None,
    compile_to: str | None,
    schedules: str | None,
    activations: str | None,
    kv: str | None,
    attention: str,
    context: int | None,
    isa: str | None,
    threads: int | None,
    weights: WeightChoice,
) -> None:
    """Compile MODEL (alias, GGUF file, Hugging Face folder) or an MLIR file into a directory."""
    choice = choose(model, activations, kv, context, isa, threads, weights, attention)
    options = replace(choice.options, dump=dump_stages, schedules=usable(schedules))
    is_file = Path(model).suffix == SUFFIX or model == STANDARD_STREAM
    if target.name not in TARGETS:
        given = {"--activations": activations, "--isa": isa, "--dump-stages": dump_stages}
        given |= {"--schedules": schedules}
        check_gpu_options(model, target, is_file, given)
        compile_gpu_file(model, output, GpuOptions(target), compile_from, compile_to, session)
    elif is_file:
        compile_file(model, output, options, compile_from, compile_to, session)
    elif compile_from or compile_to:
        raise UsageError(
            "only an MLIR file can start or end at a stage",
            accepted="FILE.mlir; --dump-stages DIR writes every stage of a model",
        )
    else:
        compile_model(replace(choice, options=options), output)
    click.echo(f"wrote {output}")


def check_gpu_options(
    model: str, target: ChosenTarget, is_file: bool, given: Mapping[str, object]
) -> None:
    """Raise UsageError for what cannot be compiled for a GPU, and for options of CPUs alone."""
    if not is_file:
        raise UsageError(f"'{model[:60]}' for target {target}", accepted="FILE.mlir")
    unknown = [name for name, value in given.items() if value is not None]
    if unknown:
        raise UsageError(f"{unknown[0]} with target {target}", accepted="target cpu")


def compile_model(choice: ModelChoice, output: Path) -> None:
    """Write the artifact of a model; what is wrong with the folders is said before the work."""
    check_folder(output, MANIFEST)
    if choice.options.dump is not None:
        check_folder(choice.options.dump, f"{STAGE_NAMES[0]}{SUFFIX}")
    choice.say_notes()
    choice.compile_to(output)
