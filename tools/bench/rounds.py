"""Interleaved rounds: everything that is compared runs in turn, in a new random order each time.

A machine drifts by tens of per cent within minutes (neighbours, clock, memory), so a figure is
worth something beside another only if both saw the same drift. Minimum and median of many rounds
are kept: the minimum is what the code can do, the median what one gets.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Contestant = Callable[[], float]
"""Does its work once and returns the seconds it took, its own preparation left out."""

SETTLE_SECONDS = 0.01  # libgomp's workers spin for some milliseconds after their last region


@dataclass(frozen=True)
class Rotation:
    """How a kernel goes through its weights: `copies` of them, `repeats` times a run."""

    copies: int = 1
    repeats: int = 1

    @property
    def products(self) -> int:
        """Products of one run."""
        return self.copies * self.repeats


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant over its rounds."""

    best: float
    median: float
    rounds: int

    def scaled(self, factor: float) -> "Timing":
        """The same in another unit, or per part of the work."""
        return Timing(self.best * factor, self.median * factor, self.rounds)


@dataclass(frozen=True)
class Schedule:
    """How contestants take turns.

    rounds: measured turns of each; warmups: turns before those, thrown away; seed: of the order;
    settle: seconds of rest before each turn, so that nobody runs beside another's idle threads.
    """

    rounds: int
    warmups: int = 1
    seed: int = 0
    settle: float = SETTLE_SECONDS


def summarize(seconds: list[float]) -> Timing:
    """Minimum and median of at least one measurement."""
    return Timing(min(seconds), median(seconds), len(seconds))


def interleave(contestants: Mapping[str, Contestant], schedule: Schedule) -> dict[str, Timing]:
    """Runs all contestants in turn, `schedule.rounds` times, and sums up each one's seconds."""
    order = list(contestants)
    shuffle = random.Random(schedule.seed).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(schedule.warmups + schedule.rounds):
        shuffle(order)
        for name in order:
            time.sleep(schedule.settle)
            taken = contestants[name]()
            if turn >= schedule.warmups:
                seconds[name].append(taken)
    return {name: summarize(values) for name, values in seconds.items()}


def timed(action: Callable[[], object]) -> float:
    """Seconds that `action` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
