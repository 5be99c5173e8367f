"""The option `--target NAME[:LEVEL]`, and which part of the tools serves each target.

A target that can be compiled for, or verified, has a row here and nothing else in the verbs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from nybble.backends.gpu.arch import ARCHS, IMAGINED
from nybble.tools.diagnostics import Session, UsageError

FPGAS = ("u280", "u55c", "vhk158", "v80", "zcu104", "kv260")
"""Levels of target fpga: descriptions in `costmodel.targets` with resources."""


@dataclass(frozen=True)
class Row:
    """A kind of machine.

    usual: its level where the user names none. levels: those that can be named. compiles: the
    "module:function" that takes a CompileRequest; verifies: the one that takes a VerifyRequest and
    gives the exit code. Empty: not served.
    """

    usual: str = ""
    levels: tuple[str, ...] = ()
    compiles: str = ""
    verifies: str = ""


ROWS: Mapping[str, Row] = {
    "cpu": Row(
        compiles="nybble.tools.compile_cpu:compile_for_cpu",
        verifies="nybble.tools.verify.command:verify_on_cpu",
    ),
    "cuda": Row(
        "sm_90a",
        (*ARCHS, *IMAGINED),
        compiles="nybble.tools.gpu_file:compile_for_gpu",
        verifies="nybble.tools.verify.gpu:verify_on_gpu",
    ),
    "fpga": Row(
        "u280",
        FPGAS,
        compiles="nybble.tools.compile_fpga:compile_for_fpga",
        verifies="nybble.tools.verify.fpga:verify_on_fpga",
    ),
    "spgemm": Row(
        "piuma-like",
        ("piuma-like",),
        compiles="nybble.tools.spgemm_file:compile_for_spgemm",
        verifies="nybble.tools.verify.spgemm:verify_spgemm",
    ),
    "fpga-rtl": Row(verifies="nybble.tools.verify.rtl:verify_rtl"),
}


@dataclass(frozen=True)
class ChosenTarget:
    """A row of ROWS, and a level of it; empty where another option says it."""

    name: str
    level: str

    def __str__(self) -> str:
        return f"{self.name}:{self.level}" if self.level else self.name


@dataclass(frozen=True)
class CompileRequest:
    """What `nybble compile` was asked.

    start, stop: `--compile-from` and `--compile-to`. given: the options that not every target
    takes, by their names on the command line without dashes; None where one was not given.
    """

    model: str
    output: Path | None
    target: ChosenTarget
    start: str | None
    stop: str | None
    json_file: str | None
    session: Session
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def folder(self) -> Path:
        """The directory to write; UsageError where the user named none."""
        if self.output is None:
            raise UsageError("no --output, the directory to write", accepted="-o DIR")
        return self.output

    def refuse(self, *kept: str) -> None:
        """Raise UsageError for an option that was given and is none of the `kept` ones."""
        refuse_given(self.given, kept, self.target)


@dataclass(frozen=True)
class VerifyRequest:
    """What `nybble verify` was asked: the numbers of the cases, and options as CompileRequest's.

    targets: one or more of one row.
    """

    targets: tuple[ChosenTarget, ...]
    cases: range
    seed: int
    json_file: str | None
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def target(self) -> ChosenTarget:
        """The only one; UsageError where there are several."""
        first, *others = self.targets
        if others:
            raise UsageError(f"several targets, {first} and {others[0]}", accepted="one of them")
        return first

    def refuse(self, *kept: str) -> None:
        """Raise UsageError for an option that was given and is none of the `kept` ones."""
        refuse_given(self.given, kept, self.targets[0])


def refuse_given(given: Mapping[str, Any], kept: tuple[str, ...], target: ChosenTarget) -> None:
    """Raise UsageError for the first option with a value, unless it is one of `kept`."""
    unknown = [name for name, value in given.items() if value and name not in kept]
    if unknown:
        takes = ", ".join(f"--{name}" for name in kept) or "none of the kind"
        raise UsageError(f"--{unknown[0]} with target {target}", accepted=takes)


class TargetType(click.ParamType[ChosenTarget]):
    """Reads `NAME` or `NAME:LEVEL` of a target whose row has `serves`."""

    name = "target"

    def __init__(self, serves: Callable[[Row], str]) -> None:
        """serves: the field of a row that may not be empty."""
        self.serves = serves

    def convert(self, value: Any, param: Any, ctx: Any) -> ChosenTarget:
        """See `click.ParamType`."""
        if isinstance(value, ChosenTarget):
            return value
        found = read_target(str(value))
        if found is None or not self.serves(ROWS[found.name]):
            self.fail(
                f"unknown target '{str(value)[:40]}'; accepted: {accepted(self.serves)}", param, ctx
            )
        return found


class TargetsType(TargetType):
    """Reads one or more targets of one kind, with commas between: cuda:sm_80,cuda:sm_90a."""

    name = "targets"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """See `click.ParamType`; gives a tuple."""
        if isinstance(value, tuple):
            return value
        read = super().convert
        found = [read(one.strip(), param, ctx) for one in str(value).split(",")]
        if len({one.name for one in found}) > 1:
            self.fail(f"targets of several kinds: {str(value)[:40]}", param, ctx)
        return tuple(dict.fromkeys(found))


def compiles(row: Row) -> str:
    """Who compiles for a target."""
    return row.compiles


def verifies(row: Row) -> str:
    """Who verifies a target's code."""
    return row.verifies


def accepted(serves: Callable[[Row], str] = compiles) -> str:
    """What can be named, for a message."""
    found = [(name, row) for name, row in ROWS.items() if serves(row)]
    return ", ".join(
        one for name, row in found for one in [f"{name}:{level}" for level in row.levels] or [name]
    )


def read_target(text: str) -> ChosenTarget | None:
    """The target that a text names; None if it names none that code is generated for."""
    name, _, level = text.partition(":")
    if name not in ROWS or (level and level not in ROWS[name].levels):
        return None
    return ChosenTarget(name, level or ROWS[name].usual)


def serve(reference: str, request: CompileRequest | VerifyRequest) -> Any:
    """Call the "module:function" of a row."""
    module, _, function = reference.partition(":")
    return getattr(import_module(module), function)(request)


def target_option(
    serves: Callable[[Row], str], help_text: str, several: bool = False
) -> Callable[[Any], Any]:
    """The option, for the targets whose row has `serves`. several: gives a tuple of them."""
    kind = TargetsType if several else TargetType
    return click.option(
        "--target", type=kind(serves), default="cpu", show_default=True,
        metavar="NAME[:LEVEL]", help=f"{help_text}: {accepted(serves)}.",
    )  # fmt: skip
