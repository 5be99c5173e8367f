"""nybble explain: how each kernel is computed and why, or why something cannot be."""

import json
import re
from dataclasses import replace

import click

from nybble.backends.cpu import isa as levels
from nybble.costmodel.targets.reader import TARGETS
from nybble.dialects.lowbit import formats
from nybble.frontend.compile_model import CompileOptions
from nybble.frontend.weight_choice import WeightChoice
from nybble.tools.ask_model import CPU, Ask, ModelAnswer, ask_model, check_target
from nybble.tools.diagnostics import Session, UsageError
from nybble.tools.explain import OPERATORS, Answer, Question, answer, gpu_answer, notes
from nybble.tools.files import write_output
from nybble.tools.gpu_file import GpuOptions, gpu_mode
from nybble.tools.mlir_file import FIRST, STAGE_NAMES, advance, is_mlir, read_module
from nybble.tools.model_options import json_option, model_options
from nybble.tools.models import ModelChoice, choose, shown_progress
from nybble.tools.run_file import SCHEDULED
from nybble.tools.target import ChosenTarget, accepted, read_target

MAX_SIDE = 1 << 24
_SHAPE = re.compile(r"([1-9][0-9]{0,8})x([1-9][0-9]{0,8})")


@click.command(name="explain")
@click.argument("model", required=False)
@click.option("--op", type=click.Choice(list(OPERATORS)), help="Ask about one operator instead.")
@click.option(
    "--format",
    "spec",
    default="q4_0",
    show_default=True,
    help="Of its weight, or of all matrices of a MODEL that is a shape.",
)
@click.option("--shape", default="4096x4096", show_default=True, help="ROWSxCOLS of its weight.")
@click.option(
    "--n", type=click.IntRange(1, 1 << 16), default=1, show_default=True, help="Its token rows."
)
@click.option("--dataflow", default="", help="That products must take; default: the cheapest.")
@click.option(
    "--target",
    default=CPU,
    show_default=True,
    help=f"Of a model: {CPU}, {', '.join(TARGETS)}, or a YAML file that describes a machine; "
    f"with --op: {accepted()}.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 1 << 16),
    default=1,
    show_default=True,
    help="Texts at once, each of --context tokens.",
)
@click.option("--prompt", type=click.IntRange(1), help="Tokens of a prompt; default: the context.")
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
    batch: int,
    prompt: int | None,
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
    """Print for each kernel of MODEL (alias, GGUF file, Hugging Face folder, shape or MLIR file)
    what it computes, how and why, and how long prompts and answers take on a target; or with --op,
    whether and how one operator can be compiled."""
    if (model is None) == (op is None):
        raise UsageError("explain needs either MODEL or --op", accepted="see --help")
    chosen = None if op is None else code_target(target, isa)
    mode = activations if chosen is None or chosen.name == CPU else None
    choice = choose(model or "", mode, kv, context, None, threads, weights, attention)
    # nothing runs here, so that a level may be asked about that this machine lacks
    options = replace(choice.options, threads=threads or 1, dataflow=dataflow, isa=isa)
    choice = replace(choice, options=options)
    level = levels.get(str(options.pass_options()["isa"]))
    reported = level.name
    if op is not None and chosen is not None:
        question = Question(op, checked_format(spec), *parse_shape(shape), n)
        target, reported = chosen.name, chosen.level or reported
        found = ask_operator(question, options, chosen, activations)
    elif is_mlir(model or ""):
        require_cpu(target, "an MLIR file")
        found = ask_file(choice, from_stage, session)
    else:
        check_target(target)
        with shown_progress() as progress:
            found = ask_model(choice, Ask(target, batch, prompt, checked_format(spec)), progress)
    report = found.report() | {"target": target, "isa": reported}
    if json_file is not None:
        write_output(json_file, (json.dumps(report) + "\n").encode())
    else:
        click.echo("\n".join(found.lines()))


def code_target(text: str, for_cpu: str | None) -> ChosenTarget:
    """The target of generated code that a text names; UsageError. for_cpu: an option of the CPU."""
    found = read_target(text)
    if found is None:
        raise UsageError(f"'{text[:40]}' is no target that --op can ask about", accepted=accepted())
    if found.name != CPU and for_cpu:
        raise UsageError(f"--isa with target {found}", accepted=f"--target {CPU}")
    return found


def ask_operator(
    question: Question, options: CompileOptions, target: ChosenTarget, activations: str | None
) -> Answer:
    """The answer for one operator. activations: the option, as given."""
    if target.name != CPU:
        mode = gpu_mode(target, activations)
        return gpu_answer(question, GpuOptions(target, mode, options.dataflow))
    level = levels.get(str(options.pass_options()["isa"]))
    fitting = replace(options, context=max(question.n, 2), chunk=question.n)
    return answer(question, fitting, level, CPU)


def ask_file(choice: ModelChoice, from_stage: str, session: Session) -> ModelAnswer:
    """The answer for an MLIR file."""
    options = choice.options
    module = read_module(choice.model, from_stage, session)
    advance(module, from_stage, SCHEDULED, options)
    level = levels.get(str(options.pass_options()["isa"]))
    return ModelAnswer(notes(module, level, options.threads))


def require_cpu(target: str, what: str) -> None:
    """Raise UsageError for a target that only whole models can be asked about."""
    if target != CPU:
        raise UsageError(
            f"--target {target} is for whole models, and this is {what}", accepted=f"--target {CPU}"
        )


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
