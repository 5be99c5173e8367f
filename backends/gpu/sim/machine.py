"""The state of a batch of blocks while it runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from nybble.backends.gpu.sim.copies import CopyQueue
from nybble.backends.gpu.sim.grid import Grid
from nybble.backends.gpu.sim.lanes import Lanes
from nybble.backends.gpu.sim.mbarriers import MBarriers
from nybble.backends.gpu.sim.memory import (
    CONSTANTS,
    LOCAL_WINDOW,
    OFFSETS,
    PARAM_WINDOW,
    SHARED_WINDOW,
    SHIFT,
    GlobalMemory,
    PrivateMemory,
    SharedMemory,
)
from nybble.backends.gpu.sim.order import Order
from nybble.backends.gpu.sim.profile import Profile
from nybble.backends.gpu.sim.ptx import Entry
from nybble.backends.gpu.sim.registers import RegisterFile
from nybble.backends.gpu.sim.shadow import Reporter
from nybble.backends.gpu.sim.sync import BlockSync
from nybble.backends.gpu.sim.tensormap import TensorMap
from nybble.backends.gpu.sim.threads import Threads
from nybble.backends.gpu.sim.types import Array
from nybble.backends.gpu.sim.warpgroups import WarpgroupQueue

Memory: TypeAlias = GlobalMemory | SharedMemory | PrivateMemory
_WINDOWS = {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW, "param": PARAM_WINDOW}
_SPACE_OF = {number: space for space, number in _WINDOWS.items()}


@dataclass
class Machine:
    """Everything that instructions read and change.

    symbols: variable or parameter -> its space and its address there. maps: offset in the
    parameters -> a tensor map and the address of its tensor. events: how often something changed
    that a waiting thread may see. bulk_groups: thread -> when it committed each group. polled:
    threads that should let others run first.
    """

    entry: Entry
    grid: Grid
    order: Order
    reporter: Reporter
    registers: RegisterFile
    globals: GlobalMemory
    shared: SharedMemory
    local: PrivateMemory
    parameters: PrivateMemory
    symbols: dict[str, tuple[str, int]]
    profile: Profile
    sync: BlockSync
    threads: Threads
    maps: dict[int, tuple[TensorMap, int]]
    dynamic_shared: int = 0
    events: int = 0
    polled: Lanes | None = None
    mma: Counter[str] = field(default_factory=Counter[str])
    bulk_groups: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    copies: CopyQueue = field(init=False)
    barriers: MBarriers = field(init=False)
    wgmma: WarpgroupQueue = field(init=False)

    def __post_init__(self) -> None:
        self.copies = CopyQueue(self.shared, self.grid.threads)
        self.barriers = MBarriers(self.order, self.reporter)
        self.wgmma = WarpgroupQueue(self.grid.threads, self.order)

    def memory(self, space: str) -> Memory:
        """The memory of a state space."""
        private = {"shared": self.shared, "local": self.local, "param": self.parameters}
        return private.get(space, self.globals)


def window_of(space: str) -> int:
    """What is added to an address of a space to make it generic."""
    return CONSTANTS if space == "const" else _WINDOWS.get(space, 0) << SHIFT


def by_space(addresses: Array) -> list[tuple[str, Array | None, Array]]:
    """Generic addresses by their space: (space, mask of lanes or None for all, addresses in it)."""
    window = addresses >> SHIFT
    kinds = [int(one) for one in np.unique(np.minimum(window, PARAM_WINDOW + 1))]
    if len(kinds) == 1:
        space = _SPACE_OF.get(kinds[0], "global")
        return [(space, None, addresses if space == "global" else addresses & OFFSETS)]
    parts: list[tuple[str, Array | None, Array]] = []
    for kind in kinds:
        mask = np.minimum(window, PARAM_WINDOW + 1) == kind
        space = _SPACE_OF.get(kind, "global")
        some = addresses[mask]
        parts.append((space, mask, some if space == "global" else some & OFFSETS))
    return parts
