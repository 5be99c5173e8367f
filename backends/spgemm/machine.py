"""Machines that programs are timed on, as data: every number says where it is from.

A source begins with "published", "assumed", or "ours" for what follows from our own code.
"""

from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files

import yaml

from nybble.costmodel.targets.nodes import Node
from nybble.costmodel.targets.target import Fact
from nybble.dialects.errors import UnknownNameError

MACHINES = {"piuma-like": "piuma_like.yaml"}
"""Name -> its file, beside this one."""


@dataclass(frozen=True)
class Machine:
    """A core with barrel pipelines, a scratchpad, DMA and memory channels.

    The facts are those of the file's keys; times are in cycles, rates are a cycle.
    """

    name: str
    title: str
    cores: Fact
    pipes: Fact
    threads: Fact
    scratchpad: Fact
    gap: Fact
    near_latency: Fact
    near_ports: Fact
    far_latency: Fact
    far_bytes: Fact
    channels: Fact
    line: Fact
    queue: Fact
    dma_instructions: Fact
    barrier: Fact

    def having(self, **changes: float) -> "Machine":
        """The machine with other numbers, which are then assumed."""
        return replace(
            self, **{name: Fact(value, "assumed: changed") for name, value in changes.items()}
        )

    def facts(self) -> dict[str, Fact]:
        """Every number."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: fact for name, fact in found.items() if isinstance(fact, Fact)}


@cache
def find_machine(name: str) -> Machine:
    """The machine of that name; raises UnknownNameError."""
    if name not in MACHINES:
        raise UnknownNameError(f"unknown machine '{name[:40]}'", accepted=", ".join(MACHINES))
    text = files("nybble.backends.spgemm").joinpath(MACHINES[name]).read_text()
    names = [field.name for field in fields(Machine)]
    top = Node(MACHINES[name], "", yaml.safe_load(text)).only(names)
    facts = {key: top.fact(key, "bytes" if key == "scratchpad" else "count") for key in names[2:]}
    return Machine(top.text("name"), top.text("title"), **facts)
