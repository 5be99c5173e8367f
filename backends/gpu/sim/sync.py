"""What blocks learn of each other through strong accesses to global memory.

A strong write publishes, at its address, what its block did before its last fence (or before the
write itself, if it releases). A strong read of the address learns that. Reading is taken to
acquire even where PTX asks for one more fence behind it, as programs leave that out safely.
"""

from __future__ import annotations

import numpy as np

from nybble.backends.gpu.sim.lanes import Lanes
from nybble.backends.gpu.sim.memory import FIRST_BUFFER, SHIFT
from nybble.backends.gpu.sim.order import Order
from nybble.backends.gpu.sim.shadow import GlobalShadow
from nybble.backends.gpu.sim.types import Array


class BlockSync:
    """Knowledge between the blocks of a launch. released: address -> int64[blocks]."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.released: dict[int, Array] = {}

    def begin(self, order: Order, shadow: GlobalShadow) -> None:
        """Begin a batch."""
        self.order = order
        self.shadow = shadow
        self.grid = order.grid
        self.fenced = np.zeros(order.grid.blocks, np.int64)

    def fence(self, lanes: Lanes) -> None:
        """Threads fence memory for the whole device."""
        blocks = np.unique(self.grid.block_of[lanes.index])
        self.fenced[blocks] = self.order.now

    def publish(self, lanes: Lanes, addresses: Array, *, releases: bool) -> None:
        """Threads write strongly to addresses."""
        if self.blocks == 1 or int(addresses[0]) >> SHIFT < FIRST_BUFFER:
            return
        for block, address in self._pairs(lanes, addresses):
            vector = self.released.setdefault(address, np.zeros(self.blocks, np.int64))
            own = self.order.now if releases else int(self.fenced[block])
            if own and self.shadow.seen is not None:
                np.maximum(vector, self.shadow.seen[block], out=vector)
            number = block + self.grid.first
            vector[number] = max(int(vector[number]), own)

    def observe(self, lanes: Lanes, addresses: Array) -> None:
        """Threads read strongly from addresses."""
        if not self.released or int(addresses[0]) >> SHIFT < FIRST_BUFFER:
            return
        for block, address in self._pairs(lanes, addresses):
            if address not in self.released:
                continue
            if self.shadow.seen is None:
                self.shadow.seen = np.zeros((self.grid.blocks, self.blocks), np.int64)
            row = self.shadow.seen[block]
            np.maximum(row, self.released[address], out=row)

    def _pairs(self, lanes: Lanes, addresses: Array) -> list[tuple[int, int]]:
        blocks = self.grid.block_of[lanes.index]
        pairs = np.unique(np.stack([blocks, addresses], axis=1), axis=0)
        return [(int(block), int(address)) for block, address in pairs]
