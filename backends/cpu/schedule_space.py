"""What a schedule may choose for a kernel: named sizes, their legal values, and today's choice.

A kernel's lowering has a `Space`, a table with a row for each size that changes its code. The legal
values of a row follow from the kernel's specification, which has the instruction-set level in it.
The default is what the lowering takes where a schedule leaves a size open.

    space.settle(spec, {"unroll": 4})       # every size, checked
    [*space.candidates(spec)]               # every legal choice
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from nybble.dialects.errors import NybbleError

S = TypeVar("S")
Options = Mapping[str, int]
"""Name of a size -> its value."""
NO_OPTIONS: Options = MappingProxyType({})


class ScheduleError(NybbleError):
    """A schedule that asks for a size that the kernel cannot have."""


@dataclass(frozen=True)
class Size(Generic[S]):
    """A row of a space.

    meaning: for people. values: the legal ones, ascending; the default is one of them even where
    `values` leaves it out. default: what the lowering takes by itself.
    """

    name: str
    meaning: str
    values: Callable[[S], Sequence[int]]
    default: Callable[[S], int]

    def legal(self, spec: S) -> list[int]:
        """The values that a kernel may have."""
        return sorted({*self.values(spec), self.default(spec)})


@dataclass(frozen=True)
class Space(Generic[S]):
    """The sizes of one lowering. conflict: why a choice of all sizes cannot be, None if it can."""

    sizes: tuple[Size[S], ...] = ()
    conflict: Callable[[S, Options], str | None] = lambda _spec, _chosen: None

    def default(self, spec: S) -> dict[str, int]:
        """What the lowering takes by itself."""
        return {size.name: size.default(spec) for size in self.sizes}

    def settle(self, spec: S, asked: Options) -> dict[str, int]:
        """Every size: as asked for, else its default. Raises ScheduleError."""
        chosen = self.default(spec)
        for name, value in asked.items():
            size = next((one for one in self.sizes if one.name == name), None)
            if size is None:
                raise ScheduleError(
                    f"this kernel has no size '{name}' to schedule",
                    accepted=", ".join(chosen) or "none",
                )
            if value not in size.legal(spec):
                raise ScheduleError(
                    f"size {name} = {value} ({size.meaning})",
                    accepted=", ".join(map(str, size.legal(spec))),
                )
            chosen[name] = value
        fault = None if chosen == self.default(spec) else self.conflict(spec, chosen)
        if fault is not None:
            raise ScheduleError(f"sizes that do not go together: {fault}")
        return chosen

    def candidates(self, spec: S) -> Iterator[dict[str, int]]:
        """Every legal choice, the default among them."""
        names = [size.name for size in self.sizes]
        default = self.default(spec)
        for values in product(*(size.legal(spec) for size in self.sizes)):
            chosen = dict(zip(names, values, strict=True))
            if chosen == default or self.conflict(spec, chosen) is None:
                yield chosen


class Choices(Protocol):
    """A space of one kernel: see Bound."""

    def settle(self, asked: Options) -> dict[str, int]:
        """See Space."""
        ...

    def candidates(self) -> Iterator[dict[str, int]]:
        """See Space."""
        ...

    def values(self) -> dict[str, list[int]]:
        """Name of a size -> its legal values."""
        ...

    def allows(self, chosen: Options) -> bool:
        """Whether legal values of all sizes go together."""
        ...


@dataclass(frozen=True)
class Bound(Generic[S]):
    """A space with the specification of the kernel it is asked about."""

    space: Space[S]
    spec: S

    def settle(self, asked: Options) -> dict[str, int]:
        """See Space."""
        return self.space.settle(self.spec, asked)

    def candidates(self) -> Iterator[dict[str, int]]:
        """See Space."""
        return self.space.candidates(self.spec)

    def values(self) -> dict[str, list[int]]:
        """See Choices."""
        return {size.name: size.legal(self.spec) for size in self.space.sizes}

    def allows(self, chosen: Options) -> bool:
        """See Choices."""
        return chosen == self.space.default(self.spec) or (
            self.space.conflict(self.spec, chosen) is None
        )


def divisors(total: int, most: int, step: int = 1, least: int = 1) -> list[int]:
    """The divisors of `total` that are multiples of `step`, from `least` to `most`."""
    return [d for d in range(step, min(most, total) + 1, step) if total % d == 0 and d >= least]


def powers(most: int, least: int = 1) -> list[int]:
    """The powers of two from `least` to `most`."""
    return [1 << e for e in range(most.bit_length()) if least <= 1 << e <= most]
