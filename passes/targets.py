"""What passes ask a target: which of its dataflows compute a product, and at what cost.

A pass knows a target by name alone; the table gives the object that answers, which lives with the
backend and is imported when a pass first asks for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeGuard, runtime_checkable

from nybble.costmodel.features.facts import Facts
from nybble.costmodel.search import Choices
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.loading import Registry
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import Format

TARGETS: dict[str, str] = {
    "cpu": "nybble.backends.cpu.dataflows:CPU",
    "cuda": "nybble.backends.gpu.dataflows:CUDA",
    "fpga": "nybble.backends.fpga.dataflows:FPGA",
}


ESTIMATED, LEARNED = "estimated", "learned"
"""What decisions are made by: estimates beside each lowering, or the cost model of nybble; any
other name is the file of a model."""


@dataclass(frozen=True)
class Product:
    """A weight of `description` [rows, cols] times `tokens` rows of activations.

    activations: the mode of `select-dataflow`. isa: a level of the target, empty for its lowest.
    """

    description: Format
    rows: int
    cols: int
    tokens: int
    activations: str
    isa: str = ""

    def __str__(self) -> str:
        return (
            f"'{self.description.spec}' [{self.rows}, {self.cols}] times {self.tokens} token(s) "
            f"with activations {self.activations}"
        )


@dataclass(frozen=True)
class Verdict:
    """What a dataflow says of a product: `cycles` on one thread, or its `refusal`.

    layout: the order of bytes in which it reads weights. setup: those of the cycles in which other
    kernels make of the activation what this one reads.
    """

    dataflow: str
    layout: str
    cycles: float = 0.0
    refusal: str | None = None
    setup: float = 0.0


@dataclass(frozen=True)
class Sketch:
    """A product's kernel without IR, as a learned model is asked about it.

    choices: what a schedule may choose, None for nothing.
    """

    facts: Facts
    choices: Choices | None


@runtime_checkable
class Target(Protocol):
    """A backend, as passes see it."""

    @property
    def name(self) -> str:
        """The name in TARGETS."""
        ...

    @property
    def modes(self) -> tuple[str, ...]:
        """The activation modes that some dataflow serves."""
        ...

    def verdicts(self, product: Product) -> tuple[Verdict, ...]:
        """What each of the target's dataflows says; raises UnknownNameError for its level."""
        ...

    def sketch(self, product: Product, dataflow: str) -> Sketch | None:
        """The kernel of a product that a dataflow can compute; None where nobody measures any."""
        ...

    def choices(self, kernel: KernelOp, isa: str, threads: int) -> Choices | None:
        """What a schedule may choose for a scheduled kernel; None for nothing."""
        ...


def _is_target(found: object) -> TypeGuard[Target]:
    return isinstance(found, Target)


REGISTRY: Registry[Target] = Registry("target", TARGETS, _is_target)


def load_target(name: str) -> Target:
    """The target registered as `name`; raises UnknownNameError for a name without a row."""
    return REGISTRY.load(name)


def cheapest(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those that can, the cheapest first."""
    return sorted((one for one in verdicts if one.refusal is None), key=lambda one: one.cycles)


def nearest(target: Target, product: Product, dataflow: str = "") -> Product | None:
    """The nearest product that some dataflow, or the named one, computes; None without one."""
    for near in near_products(target, product):
        able = [one.dataflow for one in cheapest(target.verdicts(near))]
        if dataflow in able or (able and not dataflow):
            return near
    return None


def near_products(target: Target, product: Product) -> Iterator[Product]:
    """The same format on columns that it divides, then other activations, then other formats.

    Those are ordered by bits per weight, on columns that they divide.
    """
    description, cols = product.description, product.cols
    for fitting in fitting_columns(description, cols):
        yield replace(product, cols=fitting)
        yield from (replace(product, cols=fitting, activations=mode) for mode in target.modes)
    wanted = description.bits_per_weight
    others = [formats.get(name) for name in formats.names()]
    for other in sorted(others, key=lambda one: abs(one.bits_per_weight - wanted)):
        for fitting in fitting_columns(other, cols):
            yield replace(product, description=other, cols=fitting)


def fitting_columns(description: Format, cols: int) -> list[int]:
    """The multiples of a format's block next to `cols`, the nearer first."""
    size = description.block
    around = {cols // size * size, -(-cols // size) * size} - {0}
    return sorted(around, key=lambda one: abs(one - cols))
