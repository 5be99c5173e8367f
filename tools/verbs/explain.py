"""nybble explain: how each kernel is computed and why, or why something cannot be."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import click

from nybble.backends.cpu import isa as levels
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.frontend.compile_model import CompileOptions
from nybble.frontend.weight_choice import WeightChoice
from nybble.tools.diagnostics import Session, UsageError
from nybble.tools.explain import OPERATORS, KernelNote, Question, answer, notes
from nybble.tools.files import STANDARD_STREAM, write_output
from nybble.tools.mlir_file import FIRST, STAGE_NAMES, SUFFIX, advance, read_module
from nybble.tools.model_options import json_option, model_options
from nybble.tools.models import ModelChoice, choose, shown_progress
from nybble.tools.run_file import SCHEDULED
from nybble.tools.verbs.compile import TARGETS

MAX_SIDE = 1 << 24
_SHAPE = re.compile(r"([1-9][0-9]{0,8})x([1-9][0-9]{0,8})")


@click.command(name="explain")
@click.argument("model", required=False)
@click.option("--op", type=click.Choice(list(OPERATORS)), help="Ask about one operator instead.")
@click.option("--format", "spec", default="q4_0", show_default=True, help="Of its weight.")
@click.option("--shape", default="4096x4096", show_default=True, help="ROWSxCOLS of its weight.")
@click.option(
    "--n", type=click.IntRange(1, 1 << 16), default=1, show_default=True, help="Its token rows."
)
@click.option("--dataflow", default="", help="That products must take; default: the cheapest.")
@click.option("--target", type=click.Choice(TARGETS), default="cpu", show_default=True)
@click.option(
    "--from-stage",
    type=click.Choice(STAGE_NAMES[: STAGE_NAMES.index(SCHEDULED) + 1]),
    default=FIRST,
    show_default=True,
    help="The stage that an MLIR file is at.",
)
@json_option
@model_options
@click.pass_obj
def command(
    session: Session,
    model: str | None,
    op: str | None,
    spec: str,
    shape: str,
    n: int,
    dataflow: str,
    target: str,
    from_stage: str,
    json_file: str | None,
    activations: str | None,
    kv: str | None,
    attention: str,
    context: int | None,
    isa: str | None,
    threads: int | None,
    weights: WeightChoice,
) -> None:
    """Print for each kernel of MODEL (alias, GGUF file, Hugging Face folder or MLIR file) what it
    computes, how and why; or with --op, whether and how one operator can be compiled."""
    if (model is None) == (op is None):
        raise UsageError("explain needs either MODEL or --op", accepted="see --help")
    choice = choose(model or "", activations, kv, context, None, threads, weights, attention)
    # nothing runs here, so that a level may be asked about that this machine lacks
    options = replace(choice.options, threads=threads or 1, dataflow=dataflow, isa=isa)
    choice = replace(choice, options=options)
    level = levels.get(str(options.pass_options()["isa"]))
    if op is not None:
        rows, cols = parse_shape(shape)
        fitting = replace(options, context=max(n, 2), chunk=n)
        found = answer(Question(op, checked_format(spec), rows, cols, n), fitting, level, target)
        report, lines = found.report(), list(found.lines())
    else:
        kernels = explain_model(choice, options, from_stage, session)
        report = {"kernels": [asdict(one) for one in kernels]}
        lines = [line for one in kernels for line in one.lines()]
    report = {"target": target, "isa": level.name, **report}
    if json_file is not None:
        write_output(json_file, (json.dumps(report) + "\n").encode())
    else:
        click.echo("\n".join(lines))


def explain_model(
    choice: ModelChoice, options: CompileOptions, from_stage: str, session: Session
) -> list[KernelNote]:
    """The notes of a model or an MLIR file."""
    level = levels.get(str(options.pass_options()["isa"]))
    if Path(choice.model).suffix == SUFFIX or choice.model == STANDARD_STREAM:
        module = read_module(choice.model, from_stage, session)
        advance(module, from_stage, SCHEDULED, options)
        return notes(module, level, options.threads)
    if choice.is_artifact:
        raise NybbleError(
            f"{choice.model} is compiled and holds no IR", accepted="the model that it was made of"
        )
    choice.say_notes()
    with shown_progress() as progress:
        compiler = choice.compiler(progress)
        return notes(compiler.lower(compiler.graph(), SCHEDULED), level, options.threads)


def checked_format(spec: str) -> str:
    """The format's name; UsageError for one that does not exist."""
    try:
        return formats.get(spec).spec
    except formats.FormatError as error:
        raise UsageError(error.message, accepted=error.accepted) from None


def parse_shape(text: str) -> tuple[int, int]:
    """Rows and columns out of ROWSxCOLS; UsageError."""
    found = _SHAPE.fullmatch(text)
    sides = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(1 <= side <= MAX_SIDE for side in sides):
        raise UsageError(f"'{text[:60]}' is no shape", accepted=f"ROWSxCOLS, 1 to {MAX_SIDE} each")
    return sides
