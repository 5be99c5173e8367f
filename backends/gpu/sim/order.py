"""What happens before what: for each warp, up to when it knows what each other agent did.

A clock counts the instructions that touch memory or synchronise. An agent is a warp, or what a
warp started that runs by itself (bulk copies, wgmma). An access at time t of agent a is ordered
before one of warp w if w knows a up to t: vector clocks at the grain of warps, as in FastTrack
(Flanagan and Freund, PLDI 2009). What a warp knows of itself is when its lanes last met.
"""

import numpy as np

from nybble.backends.gpu.sim.grid import Grid
from nybble.backends.gpu.sim.types import Array


class Order:
    """The vector clocks of a batch.

    known: int64[warps of the batch, agents of a block]. proxies: when each warp last fenced the
    asynchronous proxy. log: the index of the instruction at each time, from 1; it goes on from
    batch to batch.
    """

    def __init__(self, grid: Grid, log: list[int], *, asynchronous: bool) -> None:
        self.grid = grid
        self.warps = grid.warps
        self.agents = self.warps * (2 if asynchronous else 1)
        self.known = np.zeros((grid.blocks * self.warps, self.agents), np.int64)
        self.proxies = np.zeros(grid.blocks * self.warps, np.int64)
        self.met = np.zeros(grid.blocks, np.int64)
        self.floor = 0
        self.log = log

    @property
    def now(self) -> int:
        """The time."""
        return len(self.log) - 1

    def tick(self, pc: int) -> int:
        """The time of a new event, which instruction `pc` is."""
        self.log.append(pc)
        return len(self.log) - 1

    def meet_lanes(self, warps: Array) -> None:
        """The lanes of some warps synchronise with each other."""
        self.known[warps, warps % self.warps] = self.now

    def meet_blocks(self, blocks: Array) -> None:
        """All warps of some blocks synchronise with each other."""
        rows = self.known.reshape(-1, self.warps, self.agents)
        rows[blocks, :, : self.warps] = self.now
        if self.agents > self.warps:
            own = rows[blocks, :, self.warps :]
            rows[blocks, :, self.warps :] = own.max(axis=1, keepdims=True)
        self.met[blocks] = self.now
        self.floor = int(self.met.min())

    def end_block(self, block: int) -> None:
        """No thread of a block is left."""
        self.met[block] = np.iinfo(np.int64).max
        self.floor = min(int(self.met.min()), self.now)

    def released(self, warps: Array) -> Array:
        """What some warps of one block know together, and did until now: int64[agents]."""
        joined = self.known[warps].max(axis=0)
        joined[warps % self.warps] = self.now
        return joined

    def acquire(self, warps: Array, vector: Array) -> None:
        """Some warps of a block learn what a release of that block published."""
        self.known[warps] = np.maximum(self.known[warps], vector)

    def await_async(self, warps: Array, time: int) -> None:
        """What some warps started until a time has ended."""
        columns = self.warps + warps % self.warps
        self.known[warps, columns] = np.maximum(self.known[warps, columns], time)
