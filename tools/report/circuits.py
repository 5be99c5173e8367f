"""The processing elements of the page: what they take of a device against what they do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CircuitPoint:
    """A synthesized element. format: of its weights. series: how it multiplies.

    rate: products a cycle, waiting included where cycles were simulated, and those with zeros that
    a sparse element leaves out; dsps: multipliers beside its `luts`.
    """

    format: str
    series: str
    luts: int
    dsps: int
    rate: float

    @property
    def label(self) -> str:
        """The format, and the DSPs if there are any."""
        return f"{self.format} ({self.dsps} DSP)" if self.dsps else self.format


def circuit_points(rows: Sequence[Mapping[str, Any]]) -> tuple[list[CircuitPoint], list[str]]:
    """Rows of `nybble bench fpga` and what they are compared with; rows that lack an entry, why."""
    found: list[CircuitPoint] = []
    left_out: list[str] = []
    for row in rows:
        try:
            found += list(_points(row))
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            left_out.append(f"a row of an element without an entry: {error!r}")
    return found, left_out


def _points(row: Mapping[str, Any]) -> Iterator[CircuitPoint]:
    name, macs = str(row["format"]), float(row["macs_per_cycle"])
    busy = float(row["ideal_cycles"]) / float(row["rtl_cycles"])
    yield CircuitPoint(name, str(row["kernel"]), int(row["luts"]), int(row["dsps"]), macs * busy)
    if row["baseline"] is not None:
        other = row["baselines"][row["baseline"]]
        yield CircuitPoint(name, "multiplying", int(other["luts"]), int(other["dsps"]), macs)
