"""The accelerator on each FPGA: sizes of a region as data with sources, and what they take."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from nybble.costmodel.targets.nodes import Node
from nybble.costmodel.targets.reader import shipped_target
from nybble.costmodel.targets.target import Fact, ResourceError, Target
from nybble.dialects.errors import UnknownNameError

FILE = "machines.yaml"
BUFFER_NAMES = ("weights", "params", "activations", "values")
QUANTITIES = {
    "clock": "hertz",
    "latency": "seconds",
    **dict.fromkeys(BUFFER_NAMES, "bytes"),
}
"""Field -> quantity of its number; the others are counts."""


@dataclass(frozen=True)
class Machine:
    """An accelerator. All numbers but `regions` are of one region.

    channels: of memory. dot: columns that a product takes at once. vector_rows, vector_start: rows
    at once, and rows that an instruction is rounded up to; matrix_rows, matrix_start: the same with
    matrix_tokens tokens. drain: clocks from the last columns of some rows to the first of the next.
    lanes: elements at once of everything else, misc_drain clocks after the last. efficiencies: of
    the memory's peak, of own channels and of those of another region. weights and so on: bytes of
    the buffers.
    """

    target: Target
    regions: int
    channels: int
    clock: float
    dot: int
    vector_rows: int
    vector_start: int
    matrix_rows: int
    matrix_start: int
    matrix_tokens: int
    lanes: int
    drain: int
    misc_drain: int
    own_efficiency: float
    crossed_efficiency: float
    latency: float
    queue: int
    products_per_dsp: int
    weights: int
    params: int
    activations: int
    values: int
    facts: Mapping[str, Fact] = field(default_factory=dict[str, Fact], hash=False, repr=False)

    @property
    def channel_speed(self) -> float:
        """Bytes a second of one channel at its peak."""
        channels = self.target.main.channels
        assert channels is not None, "a test reads every target"
        return self.target.main.total.value / channels.value

    @property
    def peak(self) -> float:
        """Bytes a second of all memory."""
        return self.target.main.total.value

    def needs(self) -> dict[str, int]:
        """Resource of the device -> how many the accelerator takes: products and buffers.

        A block of UltraRAM has 36 KiB. Vector and matrix products use the same multipliers.
        """
        products = self.dot * max(
            self.vector_rows, self.matrix_rows * self.matrix_tokens
        )  # of one clock
        buffers = sum(getattr(self, name) for name in BUFFER_NAMES)
        return {
            "dsp": self.regions * -(-products // self.products_per_dsp),
            "uram": self.regions * -(-buffers // (36 << 10)),
        }


NUMBERS = tuple(one.name for one in fields(Machine) if one.name not in ("target", "facts"))


@cache
def machines() -> Mapping[str, Node]:
    """Name of a target -> what its accelerator looks like."""
    text = files("nybble.backends.fpga.isa").joinpath(FILE).read_text()
    top = Node(FILE, "", yaml.safe_load(text))
    return {name: top.node(name).only(NUMBERS) for name in top.data}


def find_machine(name: str) -> Machine:
    """The accelerator on a target; UnknownNameError for one that has none."""
    known = machines()
    if name not in known:
        raise UnknownNameError(
            f"no accelerator is described for '{name[:60]}'", accepted=", ".join(known)
        )
    return read_machine(known[name], shipped_target(name))


def read_machine(node: Node, target: Target) -> Machine:
    """The accelerator that a mapping describes; TargetFileError, ResourceError."""
    facts = {one: node.fact(one, QUANTITIES.get(one, "count")) for one in NUMBERS}
    floats = ("clock", "latency", "own_efficiency", "crossed_efficiency")
    numbers: dict[str, Any] = {
        one: facts[one].value if one in floats else int(facts[one].value) for one in NUMBERS
    }
    found = Machine(target=target, **numbers, facts=facts)
    check_resources(found)
    return found


def check_resources(machine: Machine) -> None:
    """Raise ResourceError where the device has too few; buffers may use block RAM too."""
    target, needs = machine.target, machine.needs()
    spare = int(target.resource("bram").value) // 8  # eight of 36 Kbit make an UltraRAM
    has = {"dsp": int(target.resource("dsp").value)}
    has["uram"] = int(target.resource("uram").value) + spare
    for name, wanted in needs.items():
        if wanted > has[name]:
            raise ResourceError(
                f"the accelerator takes {wanted} '{name}' of {target.name}, {wanted - has[name]}"
                " too many",
                accepted=f"up to {has[name]}",
            )
