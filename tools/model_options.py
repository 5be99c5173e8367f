"""The command-line options that several verbs have in common."""

from collections.abc import Callable
from typing import TypeVar

import click

from nybble.backends.cpu.isa import LEVELS

MODES = ("i8", "i8-only", "i8-lut", "i16", "b1", "b2", "b3", "b4", "f32")
MAX_THREADS = 64

Function = TypeVar("Function", bound=Callable[..., object])

isa_option = click.option(
    "--isa",
    type=click.Choice(list(LEVELS)),
    help="Instruction-set level; default: this machine's.",
)
json_option = click.option(
    "--json", "json_file", metavar="FILE", help="Write a JSON report; - is stdout."
)
activations_option = click.option(
    "--activations",
    type=click.Choice(MODES),
    help="i8: 8-bit integer products, of two digits or bf16 where precision needs it (default); "
    "i8-only: of one digit; i8-lut: of one, and lookup tables of 8 bits; i16: of two digits; "
    "bN: bipolar integers of N bits, by popcounts; f32: exact.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    help="Threads to use; default: one for each processor.",
)
_MODEL_OPTIONS = (
    activations_option,
    click.option(
        "--kv",
        type=click.Choice(["f16", "f32"]),
        help="Type of the key-value cache; default: f16, and f32 with --activations f32.",
    ),
    click.option(
        "--context",
        type=click.IntRange(2),
        help="Tokens that prompt and answer may have together; default: 2048, or all the model "
        "can take if that is less.",
    ),
    isa_option,
    threads_option,
)


def model_options(function: Function) -> Function:
    """The options of every command that may have to compile a model."""
    for option in reversed(_MODEL_OPTIONS):
        function = option(function)
    return function
