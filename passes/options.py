"""Options of a compilation, handed to the passes that know them."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace

from xdsl.passes import ModulePass

Option = str | int


def configure(passes: Iterable[ModulePass], options: Mapping[str, Option]) -> list[ModulePass]:
    """The passes with each option set in those that have a field of its name."""
    return [
        replace(one, **{f.name: options[f.name] for f in fields(one) if f.name in options})
        for one in passes
    ]
