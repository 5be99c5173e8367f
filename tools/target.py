"""The option `--target NAME[:LEVEL]`."""

from dataclasses import dataclass
from typing import Any

import click

from nybble.backends.gpu.arch import ARCHS

USUAL = {"cpu": "", "cuda": "sm_90a"}
LEVELS = {"cpu": (), "cuda": tuple(ARCHS)}
ACCEPTED = ", ".join(["cpu", *(f"cuda:{name}" for name in ARCHS)])


@dataclass(frozen=True)
class ChosenTarget:
    """A row of `passes.targets.TARGETS`, and a level of it; empty where another option says it."""

    name: str
    level: str

    def __str__(self) -> str:
        return f"{self.name}:{self.level}" if self.level else self.name


class TargetType(click.ParamType[ChosenTarget]):
    """Reads `cpu`, `cuda` or `cuda:ARCH`."""

    name = "target"

    def convert(self, value: Any, param: Any, ctx: Any) -> ChosenTarget:
        """See `click.ParamType`."""
        if isinstance(value, ChosenTarget):
            return value
        found = read_target(str(value))
        if found is None:
            self.fail(f"unknown target '{str(value)[:40]}'; accepted: {ACCEPTED}", param, ctx)
        return found


def read_target(text: str) -> ChosenTarget | None:
    """The target that a text names; None if it names none that code is generated for."""
    name, _, level = text.partition(":")
    if name not in USUAL or (level and level not in LEVELS[name]):
        return None
    return ChosenTarget(name, level or USUAL[name])


target_option = click.option(
    "--target", type=TargetType(), default="cpu", show_default=True, metavar="NAME[:LEVEL]",
    help=f"What to compile for: {ACCEPTED}.",
)  # fmt: skip
