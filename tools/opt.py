"""nybble-opt: reads MLIR, runs passes or stages on it, and prints MLIR, like mlir-opt."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from nybble import __version__
from nybble.dialects.screening import decode
from nybble.tools.diagnostics import Session, run_command
from nybble.tools.files import STANDARD_STREAM, display_name, read_input, write_output
from nybble.tools.opt_options import OptOptions
from nybble.tools.reproducer import Reproducer, read_arguments

PROGRAM = "nybble-opt"
_REPORTED_PACKAGES = ("xdsl", "numpy", "xtc-mlir-python-bindings")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run nybble-opt on `arguments` (default: the process's own) and exit with its code."""
    given = sys.argv[1:] if arguments is None else arguments
    run_command(command, given, Session(PROGRAM, tuple(given)))


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        packages = ", ".join(f"{name} {version(name)}" for name in _REPORTED_PACKAGES)
        click.echo(f"{PROGRAM} {__version__} ({packages})")
        context.exit()


def _flag(name: str, help: str) -> click.Option:
    return click.Option([name], is_flag=True, help=help)


def _value(*names: str, metavar: str, help: str, default: str | None = None) -> click.Option:
    return click.Option(list(names), metavar=metavar, help=help, default=default)


_PARAMETERS: list[click.Parameter] = [
    click.Argument(["file"], default=STANDARD_STREAM),
    _value(
        "-p",
        "--passes",
        "--pass-pipeline",
        metavar="PIPELINE",
        default="",
        help="Passes to run: a,b{x=1 y=s} or builtin.module(a,b).",
    ),
    _value("--from-stage", metavar="STAGE", help="The stage whose form the input has."),
    _value("--to-stage", metavar="STAGE", help="Run the stages up to and with this one."),
    _value(
        "-o",
        "--output",
        metavar="FILE",
        default=STANDARD_STREAM,
        help="Where to write; - is standard output.",
    ),
    _flag("--split-input-file", "Treat the parts between // ----- lines apart."),
    _flag("--verify-diagnostics", "Check errors against the expected-error comments."),
    _flag("--allow-unregistered-dialect", "Accept operations of unknown dialects."),
    _flag("--mlir-print-op-generic", "Print the generic form."),
    _flag("--mlir-print-debuginfo", "Print locations."),
    _flag("--mlir-print-ir-after-all", "Print the IR after each pass, on the error stream."),
    _flag("--mlir-print-ir-after-change", "The same, for passes that changed something."),
    _flag("--mlir-timing", "Print the time that each pass took, on the error stream."),
    _value(
        "--mlir-pass-pipeline-crash-reproducer",
        "crash_reproducer",
        metavar="FILE",
        help="Where a fault of nybble is written down (default: a new temporary file).",
    ),
    _flag("--run-reproducer", "Repeat the run that wrote FILE, a reproducer."),
    click.Option(
        ["--time-limit"],
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="Processor time for reading each part; 0 lifts the limit.",
    ),
    _flag("--list-passes", "List the passes and stages, and leave."),
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print versions and leave.",
    ),
]


@click.pass_obj
def _command(session: Session, **given: Any) -> None:
    options = OptOptions(**given)
    if options.list_passes:
        _list_passes()
    elif options.run_reproducer:
        _run(_recorded_options(options), session)
    else:
        _run(options, session)


command = click.Command(
    PROGRAM,
    params=_PARAMETERS,
    callback=_command,
    help="Run passes or stages on MLIR text from FILE (- is standard input) and print the result.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _recorded_options(options: OptOptions) -> OptOptions:
    """The options that a reproducer holds, turned on that very file and standard output."""
    name = display_name(options.file)
    arguments = read_arguments(decode(read_input(options.file), name), name)
    with command.make_context(PROGRAM, list(arguments)) as context:
        recorded = OptOptions(**context.params)
    return replace(recorded, file=options.file, output=STANDARD_STREAM)


def _list_passes() -> None:
    # Imported on demand, as in _run: --help and --version need no pass and no dialect.
    from nybble.tools.opt_run import describe_passes

    click.echo(describe_passes(), nl=False)


def _run(options: OptOptions, session: Session) -> None:
    from nybble.tools.opt_run import load_steps, transform

    steps = load_steps(options, session)
    name = display_name(options.file)
    text = decode(read_input(options.file), name)
    session.sources[name] = text
    path = None if options.crash_reproducer is None else Path(options.crash_reproducer)
    session.reproducer = Reproducer(PROGRAM, session.arguments, text, path)
    write_output(options.output, transform(text, name, steps, options).encode())
