"""wgmma operations in flight: which registers of which threads their results will be in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nybble.backends.gpu.sim.lanes import WARP
from nybble.backends.gpu.sim.order import Order
from nybble.backends.gpu.sim.registers import IN_FLIGHT, Register
from nybble.backends.gpu.sim.types import Array

SIZE = 4 * WARP
"""Threads of a warpgroup."""


@dataclass
class _Operation:
    """One instruction: the registers of its results, and those that it reads. groups: of each
    thread; time: when it was started.
    """

    registers: list[Register]
    sources: list[Register]
    threads: Array
    groups: Array
    time: int


class WarpgroupQueue:
    """The operations of a batch; each thread numbers its groups from 0.

    touched: which threads wrote registers of a wgmma since their last wgmma.fence.
    """

    def __init__(self, threads: int, order: Order) -> None:
        self.order = order
        self.group = np.zeros(threads, np.int64)
        self.limit = np.full(threads, -1, np.int64)
        self.touched = np.zeros(threads, np.bool_)
        self.flying: list[_Operation] = []

    def start(self, registers: list[Register], sources: list[Register], threads: Array) -> None:
        """An operation of whole warpgroups begins."""
        one = _Operation(registers, sources, threads, self.group[threads], self.order.now)
        self._fly(one)
        self.flying.append(one)

    def commit(self, threads: Array) -> None:
        """End the groups of threads."""
        self.group[threads] += 1

    def wait(self, threads: Array, pending: int) -> None:
        """Threads wait until at most `pending` of their groups are in flight."""
        self.limit[:] = -1
        self.limit[threads] = self.group[threads] - pending - 1
        kept: list[_Operation] = []
        for one in self.flying:
            done = one.groups <= self.limit[one.threads]
            if done.any():
                self._land(one, one.threads[done])
            if not done.all():
                left = ~done
                kept.append(replace(one, threads=one.threads[left], groups=one.groups[left]))
        self.flying = kept
        for one in kept:
            self._fly(one)

    @staticmethod
    def _fly(one: _Operation) -> None:
        for register in one.registers:
            register.mark(one.threads, IN_FLIGHT)
        for register in (*one.registers, *one.sources):
            register.hold(one.threads)

    def _land(self, one: _Operation, threads: Array) -> None:
        for register in (*one.registers, *one.sources):
            register.hold(threads, held=False)
        for register in one.registers:
            if register.hazard is not None:
                register.hazard[threads] = 0
                if not register.hazard.any():
                    register.hazard = None
        warps = np.unique(threads // WARP)
        leaders = warps // 4 * 4
        order = self.order
        columns = order.warps + leaders % order.warps
        order.known[warps, columns] = np.maximum(order.known[warps, columns], one.time)
