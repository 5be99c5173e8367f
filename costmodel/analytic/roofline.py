"""The least time that a target needs for a cost, and what limits it.

Roofline (Williams, Waterman, Patterson, CACM 52(4), 2009) with a roof for every memory level and
every arithmetic unit: units and memories work side by side, so the slowest of them decides, and
launches come on top.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nybble.costmodel.analytic.cost import Cost
from nybble.costmodel.targets.target import Target

LAUNCH = "launch"


@dataclass(frozen=True)
class Estimate:
    """A predicted time.

    seconds: of it all. bound: "compute", "memory" or "launch". limit: the unit or memory level that
    decides, or "launch". terms: unit, memory level or "launch" -> seconds that it alone would take.
    """

    seconds: float
    bound: str
    limit: str
    terms: Mapping[str, float] = field(hash=False)


def time(cost: Cost, target: Target, cores: int | None = None) -> Estimate:
    """Seconds of `cost` on `cores` cores (all of them without a number).

    Raises RateError where the target has no rate for a kind of operation.
    """
    count = cores or int(target.cores.value)
    memory = {one.name: cost.moved(one.name) / one.speed(count) for one in target.memory}
    units = _units(cost, target, count)
    launch = cost.launches * target.launch.value
    terms = {**units, **memory, LAUNCH: launch}
    slowest = max([*units, *memory], key=terms.__getitem__)
    body = terms[slowest]
    if launch > body:
        return Estimate(body + launch, LAUNCH, LAUNCH, terms)
    return Estimate(body + launch, "memory" if slowest in memory else "compute", slowest, terms)


def _units(cost: Cost, target: Target, cores: int) -> dict[str, float]:
    """Arithmetic unit -> seconds that it computes."""
    counts = cost.operations.as_dict()
    if cost.special:
        counts["special"] = cost.special
    found: dict[str, float] = {}
    for kind, count in counts.items():
        rate = target.rate(kind)
        found[rate.unit] = found.get(rate.unit, 0.0) + count / (rate.core.value * cores)
    return found
