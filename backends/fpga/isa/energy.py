"""Energy of a stream, by a table of what each kind of work takes; every number has its source."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from nybble.backends.fpga.isa.machine import Machine
from nybble.backends.fpga.isa.timing import Timing
from nybble.costmodel.targets.nodes import Node

FILE = "energy.yaml"


@dataclass(frozen=True)
class Prices:
    """Joules of a product, an element, a byte; watts at rest."""

    product: float
    element: float
    on_chip_byte: float
    shared_byte: float
    memory_byte: float
    static_watts: float


@cache
def prices(memory: str, target: str) -> Prices:
    """The table for a kind of memory and a target; TargetFileError names what is missing."""
    text = files("nybble.backends.fpga.isa").joinpath(FILE).read_text()
    top = Node(FILE, "", yaml.safe_load(text))
    numbers = {
        name: top.fact(name, "count").value
        for name in ("product", "element", "on_chip_byte", "shared_byte")
    }
    return Prices(
        **numbers,
        memory_byte=top.node("memory_byte").fact(memory, "count").value,
        static_watts=top.node("static_watts").fact(target, "count").value,
    )


def energy(machine: Machine, timing: Timing) -> dict[str, float]:
    """Kind of work -> joules. A byte of memory passes a buffer twice, a product reads two bytes of
    buffers at most once for `dot` of them, which the products' price has in it."""
    price = prices(machine.target.main.name, machine.target.name)
    moved = timing.read + timing.written
    return {
        "products": timing.products * price.product,
        "elements": timing.elements * price.element,
        "memory": moved * price.memory_byte,
        "on_chip": (2 * moved + 6 * timing.elements) * price.on_chip_byte,
        "between_regions": timing.shared * price.shared_byte,
        "static": timing.seconds * price.static_watts,
    }
