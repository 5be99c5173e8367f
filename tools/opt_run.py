"""What nybble-opt does between reading its input and writing its output."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.printer import Printer
from xdsl.utils.exceptions import PassFailedException

from nybble.dialects.errors import LimitError, NybbleError, SourceLocation, UnknownNameError
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.pipeline import PipelineError, build_pipeline, run_passes
from nybble.passes.registry import PASSES, load_pass
from nybble.passes.stages import (
    STAGES,
    Stage,
    StageOrderError,
    find_stage,
    run_stage,
    stages_between,
)
from nybble.tools.diagnostics import Session, UsageError
from nybble.tools.opt_expected import check_expected
from nybble.tools.opt_observer import PassObserver
from nybble.tools.opt_options import OptOptions
from nybble.tools.time_limit import time_limit

_SPLIT = re.compile(r"^[ \t]*// -----.*$", re.MULTILINE)
_SECONDS_AT_LEAST = 1.2
_BYTES_PER_SECOND = 20_000
"""A tenth of the rate at which the parser reads ordinary text on a slow machine."""


@dataclass(frozen=True)
class Steps:
    """What is to be done to each part of the input: passes, then stages."""

    passes: tuple[ModulePass, ...]
    stages: tuple[Stage, ...]
    given: Stage | None
    """The stage whose form the input claims to have."""


@dataclass(frozen=True)
class _Part:
    """A part of the input: its text and the number of its first line in the file."""

    text: str
    first_line: int

    @property
    def is_blank(self) -> bool:
        lines = (line.strip() for line in self.text.splitlines())
        return all(not line or line.startswith("//") for line in lines)


def load_steps(options: OptOptions, session: Session) -> Steps:
    """The passes and stages that the command line names; UsageError for what does not exist."""
    try:
        return Steps(
            build_pipeline(options.passes),
            stages_between(options.from_stage, options.to_stage) if options.to_stage else (),
            find_stage(options.from_stage) if options.from_stage else None,
        )
    except (PipelineError, UnknownNameError, StageOrderError) as fault:
        if fault.location is not None:
            session.sources[fault.location.file] = options.passes
        raise UsageError(fault.message, location=fault.location, accepted=fault.accepted) from fault


def describe_passes() -> str:
    """One line for each pass and stage: its name and what it does."""
    lines = ["passes:"]
    lines += [f"  {name:<32} {_first_line(load_pass(name).__doc__)}" for name in sorted(PASSES)]
    lines += ["stages:"]
    lines += [f"  {stage.name:<32} {stage.passes}" for stage in STAGES]
    return "\n".join(lines) + "\n"


def transform(text: str, name: str, steps: Steps, options: OptOptions) -> str:
    """The output for a whole input; raises the first error of any of its parts.

    With `verify_diagnostics`, a part's error is compared with its expected-error comments, and
    only a difference is an error.
    """
    observer = PassObserver.from_options(options)
    printed = [
        output
        for part in _parts(text, split=options.split_input_file)
        if (output := _transform_part(part, name, steps, options, observer)) is not None
    ]
    observer.finish()
    return "\n// -----\n\n".join(printed)


def _parts(text: str, *, split: bool) -> Iterator[_Part]:
    """The parts with something in them, or the first one if all are blank."""
    if not split:
        yield _Part(text, 1)
        return
    parts: list[_Part] = []
    line = 1
    for piece in _SPLIT.split(text):
        parts.append(_Part(piece, line))
        line += piece.count("\n")
    yield from [part for part in parts if not part.is_blank] or parts[:1]


def _transform_part(
    part: _Part, name: str, steps: Steps, options: OptOptions, observer: PassObserver
) -> str | None:
    """What to print for a part, or None where its error is the one that was expected."""
    try:
        printed = _process(part, name, steps, options, observer)
    except NybbleError as fault:
        if not options.verify_diagnostics:
            raise
        check_expected(part.text, name, part.first_line, fault)
        return None
    if options.verify_diagnostics:
        check_expected(part.text, name, part.first_line, None)
    return printed


def _process(
    part: _Part, name: str, steps: Steps, options: OptOptions, observer: PassObserver
) -> str:
    context = make_context(allow_unregistered=options.allow_unregistered_dialect)
    module = _read(context, part, name, options)
    if steps.given is not None:
        steps.given.form.check(module, steps.given.name)
    _advance(context, module, steps, observer)
    return _print(context, module, options)


def _read(context: Context, part: _Part, name: str, options: OptOptions) -> ModuleOp:
    try:
        with time_limit(
            _seconds_for(part, options), "reading the input", "--time-limit 0 to go on"
        ):
            return parse_module(context, part.text, name, first_line=part.first_line)
    except LimitError as fault:
        fault.location = fault.location or SourceLocation(name, part.first_line, 1)
        raise


def _advance(context: Context, module: ModuleOp, steps: Steps, observer: PassObserver) -> None:
    try:
        run_passes(context, module, steps.passes, observer)
        for stage in steps.stages:
            run_stage(context, module, stage, observer)
    except PassFailedException as fault:
        raise NybbleError(str(fault)) from fault


def _seconds_for(part: _Part, options: OptOptions) -> float:
    if options.time_limit is not None:
        return options.time_limit
    return _SECONDS_AT_LEAST + len(part.text) / _BYTES_PER_SECOND


def _print(context: Context, module: ModuleOp, options: OptOptions) -> str:
    stream = StringIO()
    printer = Printer(
        stream,
        print_generic_format=options.mlir_print_op_generic,
        print_debuginfo=options.mlir_print_debuginfo,
    )
    printer.print_op(module)
    printer.print_metadata(context.loaded_dialects)
    return stream.getvalue() + "\n"


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
