"""Copies by cp.async that were started and not yet waited for.

What a copy brings is seen by nobody before its thread waits for it, and only then written: a
kernel that reads too early gets what was there before, and is reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nybble.backends.gpu.sim.memory import SharedMemory
from nybble.backends.gpu.sim.types import Array

OPEN = np.iinfo(np.int64).max


@dataclass
class _Copies:
    """Copies of one instruction. groups: the number of the group of each thread's."""

    threads: Array
    groups: Array
    positions: Array
    data: Array

    def split(self, done: Array) -> tuple[_Copies, _Copies | None]:
        """Those of a mask, and the others if there are any."""
        if done.all():
            return self, None
        parts = [
            _Copies(self.threads[m], self.groups[m], self.positions[m], self.data[m])
            for m in (done, ~done)
        ]
        return parts[0], parts[1]


class CopyQueue:
    """The copies in flight of a batch; each thread numbers its groups from 0."""

    def __init__(self, shared: SharedMemory, threads: int) -> None:
        self.shared = shared
        self.group = np.zeros(threads, np.int64)
        self.limit = np.full(threads, -1, np.int64)
        self.flying: list[_Copies] = []

    def start(self, threads: Array, positions: Array, data: Array) -> None:
        """Threads start copies of uint8[threads, bytes] to positions in shared memory."""
        shadow = self.shared.shadow
        shadow.start(threads, shadow.cells(positions, data.shape[1]))
        self.flying.append(_Copies(threads, self.group[threads], positions, data))

    def commit(self, threads: Array) -> None:
        """End the groups of threads."""
        self.group[threads] += 1

    def wait(self, threads: Array, pending: int | None) -> None:
        """Threads wait until at most `pending` of their groups are in flight; None: for all."""
        self.limit[:] = -1
        self.limit[threads] = OPEN if pending is None else self.group[threads] - pending - 1
        kept: list[_Copies] = []
        for one in self.flying:
            done = one.groups <= self.limit[one.threads]
            if not done.any():
                kept.append(one)
                continue
            landed, left = one.split(done)
            self._land(landed)
            if left is not None:
                kept.append(left)
        self.flying = kept

    def _land(self, one: _Copies) -> None:
        shadow = self.shared.shadow
        self.shared.bytes.scatter(one.positions, one.data)
        shadow.land(one.threads, shadow.cells(one.positions, one.data.shape[1]))
