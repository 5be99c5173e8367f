"""An MLIR file as the verbs of `nybble` take it: read, checked, and brought from stage to stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import click
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from nybble.dialects.errors import LimitError, NybbleError, SourceLocation
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.dialects.screening import decode
from nybble.frontend.compile_model import SCHEDULED, CompileOptions
from nybble.passes.options import Option, configure
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.stages import STAGES, find_stage, stages_between
from nybble.tools.diagnostics import Session
from nybble.tools.files import STANDARD_STREAM, display_name, read_input
from nybble.tools.time_limit import time_limit

FIRST, LAST = "operators", STAGES[-1].name
"""The stages that a hand-written file is at, and goes to, unless told otherwise."""
STAGE_NAMES = tuple(stage.name for stage in STAGES)
SUFFIX = ".mlir"
_SECONDS_AT_LEAST = 1.2
_BYTES_PER_SECOND = 20_000


class HasPassOptions(Protocol):
    """Options of a compilation, for whatever target."""

    def pass_options(self) -> Mapping[str, Option]:
        """The options that passes know by these names."""
        ...


def is_mlir(path: str) -> bool:
    """Whether what a user named is an MLIR file, or standard input, rather than a model."""
    return Path(path).suffix == SUFFIX or path == STANDARD_STREAM


def read_module(path: str, stage: str, session: Session) -> ModuleOp:
    """The verified module of a file (- is standard input), which must have the form of `stage`.

    Raises NybbleError at the place in the text; `session` gets the text to quote from.
    """
    name = display_name(path)
    text = decode(read_input(path), name)
    session.sources[name] = text
    context = make_context(allow_unregistered=stage == STAGE_NAMES[0])
    try:
        with time_limit(
            _SECONDS_AT_LEAST + len(text) / _BYTES_PER_SECOND, "reading the input", "a smaller file"
        ):
            module = parse_module(context, text, name)
    except LimitError as fault:
        fault.location = fault.location or SourceLocation(name, 1, 1)
        raise
    find_stage(stage).form.check(module, stage)
    return module


def advance(module: ModuleOp, start: str, stop: str, options: HasPassOptions) -> None:
    """Take a module from stage `start` to stage `stop`, in place; the same stage does nothing."""
    context = make_context(allow_unregistered=True)
    for stage in stages_between(start, stop) if start != stop else ():
        passes = configure(build_pipeline(stage.passes), options.pass_options())
        run_passes(context, module, passes)
        if stage.name == SCHEDULED and isinstance(options, CompileOptions):
            for fault in options.schedule(module).warnings:
                click.echo(f"nybble: warning: {fault}", err=True)
        stage.form.check(module, stage.name)


def functions_of(module: ModuleOp) -> dict[str, func.FuncOp]:
    """The functions with a body, by name."""
    found = (op for op in module.ops if isinstance(op, func.FuncOp) and op.body.blocks)
    return {function.sym_name.data: function for function in found}


def find_function(module: ModuleOp, name: str | None) -> func.FuncOp:
    """The function called `name`, or the only one; NybbleError where there is no such thing."""
    functions = functions_of(module)
    if not functions:
        raise NybbleError("the module has no function with a body")
    if name is None and len(functions) > 1:
        raise NybbleError(
            f"the module has {len(functions)} functions", accepted="--function NAME of one of them"
        )
    chosen = functions.get(name) if name is not None else next(iter(functions.values()))
    if chosen is None:
        raise NybbleError(f"no function '{name}'", accepted=", ".join(functions))
    return chosen
