"""Pass pipelines: from their spelling to pass objects, and the loop that runs and checks them."""

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, get_pass_option_infos
from xdsl.utils.arg_spec import ArgSpec, parse_pipeline
from xdsl.utils.exceptions import ArgSpecParseError, PassFailedException

from nybble.dialects.errors import (
    InternalError,
    InvalidIRError,
    NybbleError,
    SourceLocation,
    UnknownNameError,
)
from nybble.dialects.parsing import verify_module
from nybble.passes.registry import REGISTRY, load_pass

PIPELINE_NAME = "<pass-pipeline>"
"""The file name in the location of an error in a pipeline's spelling."""

_ANCHOR = re.compile(r"\s*builtin\.module\((.*)\)\s*", re.DOTALL)


class PipelineError(NybbleError):
    """A pipeline that is misspelt, or names a pass or an option that does not exist."""


class BrokenPassError(InternalError):
    """A pass that left invalid IR behind."""


class Observer(Protocol):
    """Is told before and after each pass; for dumps, timings and progress."""

    def before(self, step: ModulePass, module: ModuleOp) -> None:
        """`step` is about to run on `module`."""

    def after(self, step: ModulePass, module: ModuleOp) -> None:
        """`step` has run, and `module` verifies."""


def build_pipeline(text: str) -> tuple[ModulePass, ...]:
    """The passes of a pipeline such as `a,b{x=1 y="s"}` or `builtin.module(a,b)`.

    Raises PipelineError at the place of the fault in `text`.
    """
    anchored = _ANCHOR.fullmatch(text)
    offset = anchored.start(1) if anchored else 0
    inner = anchored.group(1) if anchored else text
    specs = _specs(inner, offset)
    places = [_at(offset + column) for column in _columns(inner, specs)]
    for spec, place in zip(specs, places, strict=True):
        _require(spec.name, place)
    return tuple(_build(spec, place) for spec, place in zip(specs, places, strict=True))


def run_passes(
    context: Context,
    module: ModuleOp,
    passes: Sequence[ModulePass],
    observer: Observer | None = None,
) -> None:
    """Run `passes` on `module` in place, verifying after each.

    Raises what a pass raises about its input (NybbleError, PassFailedException), and
    BrokenPassError for anything else that it raises and for a result that does not verify.
    """
    for step in passes:
        if observer is not None:
            observer.before(step, module)
        _run(step, context, module)
        if observer is not None:
            observer.after(step, module)


def _run(step: ModulePass, context: Context, module: ModuleOp) -> None:
    try:
        step.apply(context, module)
    except (NybbleError, PassFailedException):
        raise
    except Exception as fault:
        kind = type(fault).__name__
        raise BrokenPassError(f"pass '{step.name}' raised {kind}: {fault}") from fault
    try:
        verify_module(module)
    except InvalidIRError as fault:
        raise BrokenPassError(f"pass '{step.name}' left invalid IR: {fault}") from fault


def _specs(inner: str, offset: int) -> list[ArgSpec]:
    if inner and not inner.strip():
        return []
    try:
        return list(parse_pipeline(inner))
    except ArgSpecParseError as fault:
        column, message = _place_and_reason(str(fault))
        raise PipelineError(
            message,
            location=_at(offset + column),
            accepted="name{option=value other=1,2},name",
        ) from fault
    except StopIteration:
        raise PipelineError(
            "the pipeline ends too early", location=_at(offset + len(inner))
        ) from None


def _place_and_reason(report: str) -> tuple[int, str]:
    """Column (0-based) and reason out of the text of xDSL's error, which keeps no other record."""
    where = re.search(r"pass-pipeline:\d+:(\d+)", report)
    reason = report.strip().splitlines()[-1].strip()
    return (int(where.group(1)) - 1 if where else 0), reason


def _columns(inner: str, specs: Sequence[ArgSpec]) -> Iterator[int]:
    """Where each pass is named, counted from 0; xDSL's specs do not say."""
    end = 0
    for spec in specs:
        found = re.compile(rf"(?<![\w-]){re.escape(spec.name)}(?![\w-])").search(inner, end)
        assert found is not None, "a spec is named in the text it was parsed from"
        yield found.start()
        end = found.end()


def _require(name: str, place: SourceLocation) -> None:
    """Check that a pass exists before any pass of the pipeline is imported."""
    try:
        REGISTRY.reference(name)
    except UnknownNameError as fault:
        raise PipelineError(fault.message, location=place, accepted=fault.accepted) from fault


def _build(spec: ArgSpec, place: SourceLocation) -> ModulePass:
    kind = load_pass(spec.name)
    try:
        return kind.from_spec(spec)
    except ValueError as fault:
        raise PipelineError(
            f"pass '{spec.name}': {fault}", location=place, accepted=_options(kind)
        ) from fault


def _options(kind: type[ModulePass]) -> str:
    infos = get_pass_option_infos(kind)
    spelt = [f"{info.name.replace('_', '-')} ({info.expected_type})" for info in infos]
    return ", ".join(spelt) or f"'{kind.name}' has no options"


def _at(column: int) -> SourceLocation:
    return SourceLocation(PIPELINE_NAME, 1, column + 1)
