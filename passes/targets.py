"""What passes ask a target: which of its dataflows compute a product, and at what cost.

A pass knows a target by name alone; the table gives the object that answers, which lives with the
backend and is imported when a pass first asks for it.
"""

from dataclasses import dataclass
from typing import Protocol, TypeGuard, runtime_checkable

from nybble.dialects.loading import Registry
from nybble.dialects.lowbit.formats import Format

TARGETS: dict[str, str] = {"cpu": "nybble.backends.cpu.dataflows:CPU"}


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
    """What a dataflow says of a product: `cycles` on one thread, or its `refusal`."""

    dataflow: str
    cycles: float = 0.0
    refusal: str | None = None


@runtime_checkable
class Target(Protocol):
    """A backend, as passes see it."""

    @property
    def name(self) -> str:
        """The name in TARGETS."""
        ...

    def verdicts(self, product: Product) -> tuple[Verdict, ...]:
        """What each of the target's dataflows says; raises UnknownNameError for its level."""
        ...


def _is_target(found: object) -> TypeGuard[Target]:
    return isinstance(found, Target)


REGISTRY: Registry[Target] = Registry("target", TARGETS, _is_target)


def load_target(name: str) -> Target:
    """The target registered as `name`; raises UnknownNameError for a name without a row."""
    return REGISTRY.load(name)


def cheapest(verdicts: tuple[Verdict, ...]) -> list[Verdict]:
    """Those that can, the cheapest first."""
    return sorted((one for one in verdicts if one.refusal is None), key=lambda one: one.cycles)
