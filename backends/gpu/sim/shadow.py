"""What was last done with each cell of a memory: finds races and reads of nothing.

A cell is as wide as the narrowest access of the kernel to that memory. A packed stamp holds when
and by whom: of shared memory `time << 15 | copied << 14 | strong << 13 | agent << 6 | lane`, of
global memory
`time << 32 | strong << 31 | thread + 1`. Strong accesses (atomic, volatile, relaxed, acquire or
release) do not race with each other. What cp.async brought is `copied`.
"""

from dataclasses import dataclass

import numpy as np

from nybble.backends.gpu.sim.findings import Findings, Kind
from nybble.backends.gpu.sim.lanes import WARP, Lanes
from nybble.backends.gpu.sim.order import Order
from nybble.backends.gpu.sim.types import Array

UNTOUCHED, DEFINED, IN_FLIGHT = 0, 1, 2
_TIME = 15
_COPIED = 1 << 14
_STRONG = 1 << 13
_AGENTS = 0x7F
_LANES = 0x3F
_MANY_WARPS, _MANY_BLOCKS = 1, 2
_GLOBAL_STRONG = 1 << 31
_GLOBAL_THREAD = _GLOBAL_STRONG - 1


@dataclass
class Reporter:
    """Writes down findings with the lines of both accesses. lines: of each instruction."""

    findings: Findings
    order: Order
    lines: list[int]

    @property
    def line(self) -> int:
        """Of the instruction that runs."""
        return self.lines[self.order.log[-1]]

    def race(self, what: str, time: int, space: str) -> None:
        """A race with an access at a time."""
        other = self.lines[self.order.log[time]]
        text = f"{what} in {space} memory is not ordered after line {other}"
        self.findings.add(Kind.RACE, self.line, text, other)

    def collision(self, space: str, *, different: bool) -> None:
        """A race of threads at the running line: of a warp, or of several."""
        what = "different values" if different else "from several warps"
        text = f"threads write {what} to one place of {space} memory"
        self.findings.add(Kind.RACE, self.line, text, what=space)

    def add(self, kind: Kind, message: str, what: str = "") -> None:
        """Anything else at the running line."""
        self.findings.add(kind, self.line, message, what=what)


class SharedShadow:
    """The shadow of the shared memory of a batch. cells: how many; grain: bytes of one."""

    def __init__(self, cells: int, grain: int, order: Order, reporter: Reporter) -> None:
        self.grain = grain
        self.order = order
        self.reporter = reporter
        self.state = np.zeros(cells, np.uint8)
        self.writes = np.zeros(cells, np.int64)
        self.reads = np.zeros((cells, order.agents), np.int32)

    def cells(self, positions: Array, size: int) -> Array:
        """The cells of accesses of `size` bytes: int64[accesses, cells of each]."""
        first = positions // self.grain
        if size <= self.grain:
            return first[:, None]
        return first[:, None] + np.arange(size // self.grain)

    def read(self, numbers: Array, cells: Array, *, strong: bool = False) -> None:
        """Threads read cells [threads, ..]."""
        state = self.state[cells]
        if not (state == DEFINED).all():
            self._undefined(state)
        writes = self.writes[cells]
        warp = numbers // WARP
        if int(writes.max()) >> _TIME > self.order.floor:
            self._compare(numbers, writes, "a read", strong=strong)
        stamp = (self.order.now << 6) | (numbers % WARP)
        self.reads[cells, (warp % self.order.warps)[:, None]] = stamp[:, None]

    def peek(self, numbers: Array, cells: Array) -> None:
        """Threads use what lies in cells [threads, ..] by instructions that order themselves."""
        self._compare(numbers, self.writes[cells], "a use", strong=True)

    def write(self, numbers: Array, cells: Array, *, strong: bool = False) -> Array:
        """Threads write cells [threads, ..]; the stamps that were left."""
        self._before_write(numbers, cells, strong=strong)
        stamp = self._stamp(numbers, strong=strong)
        self.writes[cells] = stamp
        self.state[cells] = DEFINED
        return stamp

    def forget(self, cells: Array) -> None:
        """Another block wrote cells."""
        self.writes[cells] = 0
        self.state[cells] = DEFINED

    def start(self, numbers: Array, cells: Array) -> None:
        """An asynchronous copy of each thread into cells begins."""
        self._before_write(numbers, cells, strong=False)
        self.writes[cells] = self._stamp(numbers, strong=False)
        self.state[cells] = IN_FLIGHT

    def land(self, numbers: Array, cells: Array) -> None:
        """The copies of threads into cells have ended, as if the threads wrote them now."""
        self.writes[cells] = self._stamp(numbers, strong=False) | _COPIED
        self.state[cells] = DEFINED

    def land_async(self, agent: int, cells: Array) -> None:
        """A bulk copy of an agent into cells has ended."""
        self.writes[cells] = (self.order.now << _TIME) | (agent << 6)
        self.state[cells] = DEFINED

    def read_async(self, warp: int, cells: Array) -> None:
        """What a warp started reads cells [..] by the asynchronous proxy.

        What other threads stored must have been fenced for it; what cp.async brought need not be,
        as compilers take for granted.
        """
        state = self.state[cells]
        if not (state == DEFINED).all():
            self._undefined(state)
        order = self.order
        writes = self.writes[cells]
        time, agent = writes >> _TIME, (writes >> 6) & _AGENTS
        late = time > order.known[warp, agent]
        if late.any():
            self.reporter.race("an asynchronous read", int(time[late].max()), "shared")
        base = warp // order.warps * order.warps
        generic = (agent < order.warps) & ((writes & _COPIED) == 0)
        fenced = np.maximum(order.proxies[base + agent % order.warps], order.proxies[warp])
        bare = generic & (time > fenced)
        if bare.any():
            line = self.reporter.lines[order.log[int(time[bare].max())]]
            text = f"no fence.proxy.async after line {line}, which wrote what is read here"
            self.reporter.findings.add(Kind.PROXY, self.reporter.line, text, line)
        self.reads[cells, order.warps + warp % order.warps] = order.now << 6

    def collide(self, left: Array, stamp: Array, *, different: bool) -> None:
        """Threads wrote one cell in one instruction; `different`: not the same value."""
        if different or ((left ^ stamp) >> 6 & _AGENTS).any():
            self.reporter.collision("shared", different=different)

    def _stamp(self, numbers: Array, *, strong: bool) -> Array:
        agent = numbers // WARP % self.order.warps
        flag = _STRONG if strong else 0
        return ((self.order.now << _TIME) | flag | (agent << 6) | (numbers % WARP))[:, None]

    def _before_write(self, numbers: Array, cells: Array, *, strong: bool) -> None:
        order = self.order
        writes = self.writes[cells]
        if int(writes.max()) >> _TIME > order.floor:
            self._compare(numbers, writes, "a write", strong=strong)
        reads = self.reads[cells]
        if order.agents == order.warps and int(reads.max()) >> 6 <= order.floor:
            return
        warp = numbers // WARP
        time = reads >> 6
        late = time > order.known[warp][:, None, :]
        own = (warp % order.warps)[:, None] == np.arange(order.agents)
        mine = own[:, None, :] & ((reads & _LANES) == (numbers % WARP)[:, None, None])
        late &= ~mine
        if late.any() and not strong:
            self.reporter.race("a write over what was read", int(time[late].max()), "shared")

    def _compare(self, numbers: Array, writes: Array, what: str, *, strong: bool) -> None:
        order = self.order
        warp = (numbers // WARP)[:, None]
        time, agent = writes >> _TIME, (writes >> 6) & _AGENTS
        mine = (agent == warp % order.warps) & ((writes & _LANES) == (numbers % WARP)[:, None])
        late = (time > order.known[warp, agent]) & ~mine
        if strong:
            late &= (writes & _STRONG) == 0
        if late.any():
            self.reporter.race(what, int(time[late].max()), "shared")

    def _undefined(self, state: Array) -> None:
        if (state == UNTOUCHED).any():
            text = "reads shared memory that nothing wrote"
            self.reporter.add(Kind.UNINITIALIZED, text, "shared")
        if (state == IN_FLIGHT).any():
            text = "reads shared memory whose asynchronous copy was not waited for"
            self.reporter.add(Kind.ASYNC, text)


class GlobalShadow:
    """The shadow of global memory, which outlives a batch.

    Blocks know nothing of each other but what strong accesses carry: `seen` holds, for each block
    of the batch, up to when it knows each block of the launch.
    """

    def __init__(self, cells: int, grain: int) -> None:
        self.grain = grain
        self.writes = np.zeros(cells, np.int64)
        self.reads = np.zeros(cells, np.int64)
        self.spread = np.zeros(cells, np.uint8)
        self.mixed = np.zeros(cells, np.bool_)
        self.undefined = np.zeros(cells, np.bool_)
        self.quiet = np.zeros(cells, np.bool_)

    def begin(self, order: Order, reporter: Reporter, blocks: int) -> None:
        """Begin a batch of a launch of so many blocks."""
        self.order = order
        self.reporter = reporter
        grid = order.grid
        self.stride, self.first = grid.stride, grid.first * grid.stride
        self.launch = blocks
        self.seen: Array | None = None

    def cells(self, positions: Array, size: int) -> Array:
        """The cells of accesses of `size` bytes: int64[accesses, cells of each]."""
        first = positions // self.grain
        if size <= self.grain:
            return first[:, None]
        return first[:, None] + np.arange(size // self.grain)

    def read(self, lanes: Lanes, cells: Array, *, strong: bool = False) -> None:
        """Threads read cells [threads, ..]."""
        if self.undefined[cells].any():
            text = "reads global memory that nothing wrote"
            self.reporter.add(Kind.UNINITIALIZED, text, "global")
        if self.quiet[cells].all():
            return
        numbers = (lanes.numbers + self.first)[:, None]
        writes = self.writes[cells]
        if writes.any():
            self._compare(numbers, writes, "a read", strong=strong)
            if not strong:
                self._compare_mixed(numbers, cells, "a read")
        before = self.reads[cells]
        thread = (before & _GLOBAL_THREAD) - 1
        seen = before > 0
        blocks = seen & (thread // self.stride != numbers // self.stride)
        warps = seen & (thread // WARP != numbers // WARP)
        spread = np.where(blocks, _MANY_BLOCKS, warps).astype(np.uint8)
        self.reads[cells] = (self.order.now << 32) | self._flag(strong) | (numbers + 1)
        same = np.maximum(self.spread[cells], spread)
        self.spread[cells] = same
        if (self.reads[cells] & _GLOBAL_THREAD != numbers + 1).any():
            self._several(numbers, cells)

    def _several(self, numbers: Array, cells: Array) -> None:
        """Note which cells several warps or blocks read in one instruction."""
        last = (self.reads[cells] & _GLOBAL_THREAD) - 1
        blocks = last // self.stride != numbers // self.stride
        warps = last // WARP != numbers // WARP
        if not warps.any():
            return
        shape = np.broadcast_shapes(cells.shape, warps.shape)
        wide = np.broadcast_to(cells, shape)
        self.spread[wide[np.broadcast_to(warps, shape)]] = np.uint8(_MANY_WARPS)
        self.spread[wide[np.broadcast_to(blocks, shape)]] = np.uint8(_MANY_BLOCKS)

    def write(self, lanes: Lanes, cells: Array, *, strong: bool = False) -> Array:
        """Threads write cells [threads, ..]; the stamps that were left."""
        numbers = (lanes.numbers + self.first)[:, None]
        writes = self.writes[cells]
        if writes.any():
            self._compare(numbers, writes, "a write", strong=strong)
            self._mix(numbers, cells, writes, strong=strong)
        reads = self.reads[cells]
        if reads.any():
            self._compare_reads(numbers, cells, reads, strong=strong)
            self.spread[cells] = 0
        stamp = (self.order.now << 32) | self._flag(strong) | (numbers + 1)
        self.writes[cells] = stamp
        self.undefined[cells] = False
        return stamp

    def _mix(self, numbers: Array, cells: Array, writes: Array, *, strong: bool) -> None:
        """Note cells that several blocks changed by strong writes."""
        if not strong:
            self._compare_mixed(numbers, cells, "a write")
            self.mixed[cells] = False
            return
        others = ((writes & _GLOBAL_THREAD) - 1) // self.stride != numbers // self.stride
        self.mixed[cells] |= others & (writes > 0)

    def collide(self, left: Array, stamp: Array, *, different: bool) -> None:
        """Threads wrote one cell in one instruction; `different`: not the same value."""
        if (stamp & _GLOBAL_STRONG).any():
            return
        warps = ((left & _GLOBAL_THREAD) - 1) // WARP != ((stamp & _GLOBAL_THREAD) - 1) // WARP
        if different or warps.any():
            self.reporter.collision("global", different=different)

    @staticmethod
    def _flag(strong: bool) -> int:
        return _GLOBAL_STRONG if strong else 0

    def _known(self, numbers: Array, thread: Array) -> Array:
        """Up to when threads know what other threads did."""
        order = self.order
        block = numbers // self.stride - order.grid.first
        other = thread // self.stride
        same = other == block + order.grid.first
        warp = numbers // WARP - self.first // WARP
        known = order.known[warp, np.where(same, thread // WARP % order.warps, 0)]
        across = 0 if self.seen is None else self.seen[block, np.maximum(other, 0)]
        return np.where(same, known, across)

    def _compare(self, numbers: Array, stamps: Array, what: str, *, strong: bool) -> None:
        time, thread = stamps >> 32, (stamps & _GLOBAL_THREAD) - 1
        late = (stamps > 0) & (thread != numbers) & (time > self._known(numbers, thread))
        if strong:
            late &= (stamps & _GLOBAL_STRONG) == 0
        if late.any():
            self.reporter.race(what, int(time[late].max()), "global")

    def _compare_mixed(self, numbers: Array, cells: Array, what: str) -> None:
        """Plain accesses to what several blocks changed atomically need to know of others."""
        mixed = self.mixed[cells]
        if not mixed.any():
            return
        knows = np.zeros(len(numbers), np.bool_)
        if self.seen is not None:
            blocks = numbers[:, 0] // self.stride - self.order.grid.first
            knows = self.seen[blocks].max(axis=1) > 0
        late = mixed & ~knows[:, None]
        if late.any():
            stamps = self.writes[cells]
            self.reporter.race(what, int((stamps >> 32)[late].max()), "global")

    def _compare_reads(self, numbers: Array, cells: Array, reads: Array, *, strong: bool) -> None:
        time, thread = reads >> 32, (reads & _GLOBAL_THREAD) - 1
        spread = self.spread[cells]
        order = self.order
        known = self._known(numbers, thread)
        warp = numbers // WARP - self.first // WARP
        lowest = order.known[warp[:, 0], : order.warps].min(axis=1)[:, None]
        known = np.where(spread == _MANY_WARPS, np.minimum(known, lowest), known)
        across = 0
        if self.seen is not None:
            across = self.seen[numbers[:, 0] // self.stride - order.grid.first].min(axis=1)[:, None]
        known = np.where(spread == _MANY_BLOCKS, across, known)
        alone = (thread == numbers) & (spread == 0)
        late = (reads > 0) & ~alone & (time > known)
        if strong:
            late &= (reads & _GLOBAL_STRONG) == 0
        if late.any():
            self.reporter.race("a write over what was read", int(time[late].max()), "global")
