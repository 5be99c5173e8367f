"""The command-line options that several verbs have in common."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from nybble.backends.cpu.isa import LEVELS
from nybble.dialects.errors import NybbleError
from nybble.dialects.sparse_attn.kv import KvError
from nybble.dialects.sparse_attn.kv import parse as parse_kv
from nybble.dialects.sparse_attn.masks import parse_policy
from nybble.frontend.weight_choice import QUANTIZERS, ROTATIONS, USE_INPUTS, WeightChoice
from nybble.tools.diagnostics import UsageError
from nybble.tools.files import display_name, read_text

MODES = ("i8", "i8-only", "i8-lut", "i16", "b1", "b2", "b3", "b4", "f32")
FLOAT_MODES = ("f16", "bf16")
"""Those that only GPUs have."""
MAX_THREADS = 64
POLICY_KEYS = {"default", "layers"}

Result = TypeVar("Result")


def cpu_mode(given: str | None) -> str | None:
    """The mode of activations that is asked for; UsageError for one that no CPU has."""
    if given in FLOAT_MODES:
        raise UsageError(f"--activations {given} without a target cuda", accepted=", ".join(MODES))
    return given


def kv_format(text: str) -> str:
    """A format of caches in its one spelling; raises UsageError."""
    try:
        return parse_kv(text).name
    except KvError as error:
        raise UsageError(error.message, accepted=error.accepted) from error


def _kv_option(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    return None if text is None else kv_format(text)


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
    type=click.Choice((*MODES, *FLOAT_MODES)),
    help="i8: 8-bit integer products, of two digits or bf16 where precision needs it (default); "
    "i8-only: of one digit; i8-lut: of one, and lookup tables of 8 bits; i16: of two digits; "
    "bN: bipolar integers of N bits, by popcounts; f32: exact. Targets cuda have f16 (default), "
    "bf16, i8 and bN.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    help="Threads to use; default: one for each processor.",
)
kv_option = click.option(
    "--kv",
    metavar="FORMAT",
    callback=_kv_option,
    help="Format of the key-value cache: f32, f16, bf16, kv8, kv4, kv2, kivi4, kivi2, gear4, "
    "gear2, lowrank, kv4-i8; default: "
    "f16, and f32 with --activations f32.",
)
_MODEL_OPTIONS = (
    activations_option,
    kv_option,
    click.option(
        "--context",
        type=click.IntRange(2),
        help="Tokens that prompt and answer may have together; default: 2048, or all the model "
        "can take if that is less.",
    ),
    click.option(
        "--attention",
        metavar="MASK",
        help="Let tokens see less of the text: MASK, such as sink(4)+window(1024), for all layers, "
        "layers(0-3:MASK;else:MASK), or a YAML file of these; default: what the model says.",
    ),
    click.option(
        "--retaining",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="A safetensors file of learned heads that score tokens, for locret(budget,recent).",
    ),
    isa_option,
    threads_option,
)
WEIGHT_OPTIONS = (
    click.option(
        "--weights",
        metavar="RULES",
        help="Round weights to other formats: FORMAT for the layers' matrices, PATTERN=FORMAT for "
        "those of a name like it (head, embed, down_proj, layers.0), with commas between.",
    ),
    click.option(
        "--rotate",
        type=click.Choice(ROTATIONS),
        help="Rotate by Hadamard matrices the inputs of products, or the stream between layers.",
    ),
    click.option(
        "--smooth",
        is_flag=True,
        help="Scale channels of weights by what a calibration finds of their activations.",
    ),
    click.option(
        "--quantizer",
        type=click.Choice(QUANTIZERS),
        help="nearest: take each group's extremes (default); search: cut them off where it helps; "
        "gptq: make up for errors in later columns, by a calibration.",
    ),
    click.option(
        "--calibrate",
        metavar="FILE",
        help="A UTF-8 text for --smooth and gptq; default: one of nybble's.",
    ),
)


def model_options(function: Callable[..., Result]) -> Callable[..., Result]:
    """The options of every command that may have to compile a model.

    Those about weights are handed on as one argument, `weights`.
    """
    found = with_weights(function)
    for option in reversed((*_MODEL_OPTIONS, *WEIGHT_OPTIONS)):
        found = option(found)
    return found


def with_weights(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function with the options about weights as one argument, `weights`.

    An option `--attention` is handed on as the one spelling of its policy.
    """

    @wraps(function)
    def collected(*arguments: Any, **options: Any) -> Result:
        if "attention" in options:
            options["attention"] = attention_policy(options["attention"])
        names = ("weights", "rotate", "smooth", "quantizer", "calibrate")
        given = {name: options.pop(name) for name in names}
        choice = replace(_choice(**given), retaining=options.pop("retaining", None))
        return function(*arguments, weights=choice, **options)

    return collected


def attention_policy(given: str | None) -> str:
    """The policy of `--attention` in its one spelling; empty without one. MaskError, UsageError."""
    if given is None:
        return ""
    if not given.strip():
        raise UsageError("--attention is empty", accepted="a mask, such as sink(4)+window(1024)")
    is_file = given.endswith((".yaml", ".yml"))
    return str(parse_policy(policy_text(given) if is_file else given))


def policy_text(path: str) -> str:
    """The policy of a YAML file: `default: MASK`, and `layers:` a mapping of sets to masks."""
    import yaml

    try:
        found = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise NybbleError(f"{display_name(path)} is no YAML: {error}") from error
    layers = found.get("layers", {}) if isinstance(found, dict) else None
    if not isinstance(layers, dict) or not isinstance(found, dict) or set(found) - POLICY_KEYS:
        raise NybbleError(
            f"{display_name(path)} is no attention policy",
            accepted="the keys 'default' (a mask) and 'layers' (sets of layers, each with a mask)",
        )
    cases = "".join(f"{named}:{mask};" for named, mask in layers.items())
    return f"layers({cases}else:{found.get('default', 'causal')})"


def _choice(
    weights: str | None,
    rotate: str | None,
    smooth: bool,
    quantizer: str | None,
    calibrate: str | None,
) -> WeightChoice:
    """The options about weights together; UsageError where one asks for another."""
    if weights == "":
        raise UsageError("--weights is empty", accepted="RULES, such as w4g64,head=q8_0")
    for name, given in {"rotate": rotate, "smooth": smooth, "quantizer": quantizer}.items():
        if given and weights is None:
            raise UsageError(
                f"--{name} is for weights that are rounded anew", accepted="--weights RULES"
            )
    if calibrate is not None and not smooth and quantizer not in USE_INPUTS:
        raise UsageError(
            "--calibrate is for --smooth and --quantizer gptq",
            accepted="--smooth --calibrate FILE",
        )
    text = "" if calibrate is None else read_text(calibrate)
    if calibrate is not None and not text.strip():
        raise NybbleError(f"{display_name(calibrate)} is empty", accepted="a text")
    return WeightChoice(weights or "", rotate or "", smooth, text, quantizer or QUANTIZERS[0])
