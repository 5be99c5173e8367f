"""What a piece of work asks of a machine, counted in exact integers that add up."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tally:
    """Integers by name; what has no name counts 0. Made by `tally`."""

    items: tuple[tuple[str, int], ...] = ()

    def __add__(self, other: "Tally") -> "Tally":
        found = dict(self.items)
        for name, count in other.items:
            found[name] = found.get(name, 0) + count
        return tally(found)

    def __mul__(self, times: int) -> "Tally":
        return tally({name: count * times for name, count in self.items})

    def __getitem__(self, name: str) -> int:
        return dict(self.items).get(name, 0)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.items)

    def as_dict(self) -> dict[str, int]:
        """Name -> count, in the order of names."""
        return dict(self.items)


def tally(counts: Mapping[str, int]) -> Tally:
    """The counts that are not 0, in the order of their names: equal tallies compare equal."""
    return Tally(tuple(sorted((name, count) for name, count in counts.items() if count)))


@dataclass(frozen=True)
class Cost:
    """Costs of work that is done one after another add up; `times` equal pieces multiply.

    operations: kind of arithmetic (see `costmodel.targets.target.KINDS`) -> how many, a
    multiplication and an addition being two. read, written: memory level of the target -> bytes
    that it hands to, or takes from, the levels nearer to the cores. special: exponentials,
    divisions and roots. launches: kernels started. The idea of one additive record with a rule for
    each operation is that of JAX's `pallas/cost_estimate.py`.
    """

    operations: Tally = field(default=Tally())
    read: Tally = field(default=Tally())
    written: Tally = field(default=Tally())
    special: int = 0
    launches: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.operations + other.operations,
            self.read + other.read,
            self.written + other.written,
            self.special + other.special,
            self.launches + other.launches,
        )

    def __mul__(self, times: int) -> "Cost":
        return Cost(
            self.operations * times,
            self.read * times,
            self.written * times,
            self.special * times,
            self.launches * times,
        )

    __rmul__ = __mul__

    def moved(self, level: str) -> int:
        """Bytes that pass between a memory level and those nearer to the cores."""
        return self.read[level] + self.written[level]

    def as_json(self) -> dict[str, object]:
        """The fields as JSON has them."""
        return {
            "operations": self.operations.as_dict(),
            "read": self.read.as_dict(),
            "written": self.written.as_dict(),
            "special": self.special,
            "launches": self.launches,
        }


NOTHING = Cost()
