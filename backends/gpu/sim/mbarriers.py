"""mbarrier objects: phases that complete when threads have arrived and bytes have landed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from nybble.backends.gpu.sim.findings import Kind
from nybble.backends.gpu.sim.order import Order
from nybble.backends.gpu.sim.shadow import Reporter
from nybble.backends.gpu.sim.types import Array

Landing = Callable[[], int]
"""Ends a bulk copy: writes its bytes, and returns the agent that did."""


@dataclass
class MBarrier:
    """One object. pending: arrivals that the phase still needs; transactions: bytes it awaits.

    gathered: what those who arrived in this phase published; published: of the phases before.
    landings: bulk copies in flight, the bytes and the phase of each.
    """

    expected: int
    pending: int
    gathered: Array
    published: Array
    transactions: int = 0
    phase: int = 0
    landings: list[tuple[Landing, int, int]] = field(default_factory=list[tuple[Landing, int, int]])


class MBarriers:
    """The objects of a batch, by position in its shared memory."""

    def __init__(self, order: Order, reporter: Reporter) -> None:
        self.order = order
        self.reporter = reporter
        self.made: dict[int, MBarrier] = {}

    def initialize(self, position: int, count: int) -> None:
        """Make an object that `count` arrivals complete."""
        zeros = np.zeros(self.order.agents, np.int64)
        self.made[position] = MBarrier(count, count, zeros, zeros.copy())

    def expect(self, position: int, size: int) -> None:
        """The phase awaits bytes more."""
        self.made[position].transactions += size

    def arrive(self, position: int, count: int, warps: Array, *, drop: bool = False) -> int:
        """Arrivals of threads of some warps of the object's block; the phase that they are in."""
        one = self.made[position]
        phase = one.phase
        np.maximum(one.gathered, self.order.released(warps), out=one.gathered)
        if count > one.pending:
            text = f"{count} arrivals at an mbarrier that awaits {one.pending} more in this phase"
            self.reporter.add(Kind.DIVERGENCE, text, "arrivals")
        one.pending -= count
        if drop:
            one.expected -= count
        self._complete(one)
        return phase

    def copy(self, position: int, landing: Landing, size: int) -> None:
        """A bulk copy that will complete bytes begins."""
        one = self.made[position]
        one.landings.append((landing, size, one.phase))

    def land(self, position: int) -> bool:
        """End the copies in flight; whether there were any."""
        one = self.made[position]
        landings, one.landings = one.landings, []
        for landing, size, phase in landings:
            if phase != one.phase:
                text = "a phase of an mbarrier ended before a bulk copy that was issued in it"
                self.reporter.add(Kind.ASYNC, text, "bytes")
            agent = landing()
            one.gathered[agent] = self.order.now
            one.transactions -= size
            self._complete(one)
        return bool(landings)

    def done(self, position: int, phase: int | None, parity: int | None) -> bool:
        """Whether a phase has completed: that of a number, or the last of a parity."""
        one = self.made[position]
        if parity is not None:
            return one.phase & 1 != parity
        return one.phase != phase

    @staticmethod
    def _complete(one: MBarrier) -> None:
        if one.pending > 0 or one.transactions != 0:
            return
        one.phase += 1
        one.pending = one.expected
        one.published = np.maximum(one.published, one.gathered)
