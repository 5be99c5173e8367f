"""nybble: compiles models, runs them, measures them, and explains what it did."""

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from nybble import __version__
from nybble.tools.diagnostics import EXIT_USAGE, Session, run_command

PROGRAM = "nybble"
_EPILOG = (
    "Exit codes: 0 ok, 1 the input is wrong, 2 usage, 70 a fault of nybble, 130 interrupted. "
    "NYBBLE_CACHE names the directory for what is kept between runs."
)
VERBS: dict[str, str] = {
    "generate": "Generate text from a model, compiling it first if need be.",
    "compile": "Compile a model or an MLIR file ahead of time.",
    "run": "Run a compiled model or the functions of an MLIR file on given inputs.",
    "eval": "Measure the perplexity of a model on a text.",
    "bench": "Measure kernels or a model against other systems.",
    "synthesize": "Write a model file of a known shape with random weights.",
    "verify": "Check generated kernels against the numpy references.",
    "explain": "Say how each kernel is computed and why.",
    "report": "Write one HTML page about a compilation and its measurements.",
    "formats": "List the number formats.",
    "doctor": "Check this machine and the installation.",
    "tune": "Choose the sizes of loops for a model or a file.",
    "cost": "Measure schedules, and learn what they cost.",
    "cache": "List or clear what was compiled before.",
}
"""Verb -> what it does; `nybble.tools.verbs.<verb>:command`, imported when it is used."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they run, so that --help is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb, None for an unknown one."""
        if cmd_name not in VERBS:
            return None
        command = import_module(f"nybble.tools.verbs.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, out of the table alone."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"{PROGRAM} {__version__}")
        context.exit()


@click.pass_context
def _help_without_verb(context: click.Context) -> int:
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return EXIT_USAGE


command = LazyGroup(
    name=PROGRAM,
    help="Compile the operators of low-bit and sparse LLMs, and run what was compiled.",
    epilog=_EPILOG,
    invoke_without_command=True,
    callback=_help_without_verb,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Print the version.",
        )
    ],
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run nybble on `arguments` (default: the process's own) and exit with its code."""
    given = sys.argv[1:] if arguments is None else arguments
    run_command(command, given, Session(PROGRAM, tuple(given)))
