"""Where the threads of a batch are: ready at an instruction, waiting for others, or ended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nybble.backends.gpu.sim.findings import Kind
from nybble.backends.gpu.sim.lanes import WARP, Flow, Lanes, Reader, Writer
from nybble.backends.gpu.sim.order import Order
from nybble.backends.gpu.sim.shadow import Reporter
from nybble.backends.gpu.sim.types import Array

_IDLE_ROUNDS = 8


@dataclass
class Arrival:
    """Threads of one block at a barrier. expected: how many it waits for, or None for all.

    values, reduction, write: of bar.red.
    """

    lanes: Lanes
    pc: int
    waits: bool
    expected: int | None
    values: Array | None = None
    reduction: str = ""
    write: Writer | None = None


class Threads:
    """The scheduler's books. ready: index of an instruction -> the threads that are there."""

    def __init__(self, order: Order, reporter: Reporter) -> None:
        self.grid = order.grid
        self.order = order
        self.reporter = reporter
        everyone = self.grid.all()
        self.exists = np.zeros(self.grid.threads, np.bool_)
        self.exists[everyone.index] = True
        self.alive = self.exists.copy()
        self.living = everyone.size
        self.block_living = np.full(self.grid.blocks, everyone.size // self.grid.blocks)
        self.ready: dict[int, Lanes] = {0: everyone}
        self.yielded: dict[int, Lanes] = {}
        self.gathering: dict[int, Lanes] = {}
        self.barriers: dict[tuple[int, int], list[Arrival]] = {}
        self.cluster_phase = np.zeros(self.grid.threads, np.int64)
        self.waiting_cluster: dict[int, Lanes] = {}
        self.idle = 0
        self.events = -1

    def add(self, pc: int, lanes: Lanes) -> None:
        """Threads go on at an instruction."""
        if lanes.size:
            self.ready[pc] = lanes.union(self.ready[pc]) if pc in self.ready else lanes

    def rest(self, pc: int, lanes: Lanes) -> None:
        """Threads go on at an instruction when no others can."""
        others = self.yielded.get(pc)
        self.yielded[pc] = lanes.union(others) if others else lanes

    def end(self, lanes: Lanes) -> None:
        """Threads end, which may complete barriers."""
        self.alive[lanes.index] = False
        self.living -= lanes.size
        blocks = self.grid.block_of[lanes.index]
        self.block_living -= np.bincount(blocks, minlength=self.grid.blocks)
        for block in np.unique(blocks[self.block_living[blocks] == 0]):
            self.order.end_block(int(block))
        for key in [key for key in self.barriers if self.block_living[key[0]]]:
            self._complete(key)
        for pc in list(self.gathering):
            self.add(pc, self.gathering.pop(pc))

    def wake(self, events: int) -> bool:
        """Let those that rested go on; False if nobody can, or nothing happens any more."""
        self.idle = self.idle + 1 if events == self.events else 0
        self.events = events
        if not self.yielded or self.idle > _IDLE_ROUNDS:
            return False
        for pc, lanes in self.yielded.items():
            self.add(pc, lanes)
        self.yielded = {}
        return True

    # -- warps

    def gather(
        self, pc: int, lanes: Lanes, members: Reader | None, span: int = WARP
    ) -> Lanes | None:
        """The threads of warps that are all at an instruction; the others wait for theirs.

        members: reads the u32 mask of each thread; None for the whole warp. span: threads that
        must come together, a warp or a warpgroup.
        """
        waiting = self.gathering.pop(pc, None)
        if waiting is not None:
            lanes = lanes.union(waiting)
        elif lanes.size == self.living and members is None:
            return lanes
        warps = lanes.warps
        living = self.alive.reshape(-1, WARP)[warps.ids]
        needed = living
        if members is not None:
            masks = members(lanes)
            spread = np.full(lanes.size, masks) if masks.ndim == 0 else masks
            wanted = _bits(warps.spread(spread).max(axis=1))
            needed = living & wanted
            self._check_members(warps.ids, wanted)
        whole = np.asarray((warps.active | ~needed).all(axis=1))
        if span > WARP:
            whole = self._whole_groups(warps.ids, whole, span // WARP)
        if whole.all():
            return lanes
        mask = warps.gather(np.repeat(whole[:, None], WARP, axis=1))
        complete, partial = lanes.split(mask)
        self.gathering[pc] = partial
        return complete if complete.size else None

    def _whole_groups(self, warps: Array, whole: Array, size: int) -> Array:
        """Which of some warps belong to groups of which all warps that live are whole."""
        ready = np.asarray(~self.alive.reshape(-1, WARP).any(axis=1))
        ready[warps] = whole
        groups = ready.reshape(-1, self.grid.warps)
        padded = np.ones((len(groups), -(-self.grid.warps // size) * size), np.bool_)
        padded[:, : self.grid.warps] = groups
        complete = np.asarray(padded.reshape(len(groups), -1, size).all(axis=2))
        return complete[warps // self.grid.warps, warps % self.grid.warps // size]

    def _check_members(self, warps: Array, wanted: Array) -> None:
        gone = self.exists.reshape(-1, WARP)[warps] & ~self.alive.reshape(-1, WARP)[warps]
        if (gone & wanted).any():
            text = "names lanes of the warp that have ended"
            self.reporter.add(Kind.DIVERGENCE, text)

    # -- barriers of blocks

    def arrive(self, lanes: Lanes, pc: int, numbers: Array, arrival: Arrival) -> Flow | None:
        """Threads arrive at barriers of their blocks; None if all may go on.

        numbers: of the barrier, for each thread. arrival: what is the same for all.
        """
        blocks = self.grid.block_of[lanes.index]
        if self._all_at_once(lanes, numbers, blocks, arrival):
            return None
        flow: Flow = []
        for block in np.unique(blocks):
            for number in np.unique(numbers[blocks == block]):
                mask = (blocks == block) & (numbers == number)
                part = lanes.where(mask)
                values = None if arrival.values is None else arrival.values[mask]
                one = Arrival(
                    part, pc, arrival.waits, arrival.expected, values, arrival.reduction,
                    arrival.write,
                )  # fmt: skip
                key = (int(block), int(number))
                self.barriers.setdefault(key, []).append(one)
                if not arrival.waits:
                    flow.append((pc + 1, part))
                self._complete(key)
        return flow

    def _all_at_once(self, lanes: Lanes, numbers: Array, blocks: Array, arrival: Arrival) -> bool:
        """Complete a barrier of whole blocks of which all threads are here."""
        if arrival.write is not None or lanes.size != self.living or not arrival.waits:
            return False
        if self.barriers or (numbers != numbers[0]).any():
            return False
        if arrival.expected is not None:
            present = self.block_living[self.block_living > 0]
            if (present != arrival.expected).any():
                return False
        self.order.meet_blocks(np.unique(blocks))
        return True

    def _complete(self, key: tuple[int, int]) -> None:
        """Let the threads at a barrier go on if all have arrived."""
        arrivals = self.barriers[key]
        block = key[0]
        arrived = sum(one.lanes.size for one in arrivals)
        expected = arrivals[0].expected
        needed = int(self.block_living[block]) if expected is None else expected
        if arrived < needed:
            return
        if arrived > needed:
            text = f"{arrived} threads arrive at barrier {key[1]}, which waits for {needed}"
            self.reporter.add(Kind.DIVERGENCE, text, "arrivals")
        del self.barriers[key]
        self._check_barrier(arrivals, expected is None)
        _reduce(arrivals)
        warps = np.unique(np.concatenate([one.lanes.numbers for one in arrivals]) // WARP)
        if len(warps) == self.grid.warps and all(one.waits for one in arrivals):
            self.order.meet_blocks(np.array([block]))
        else:
            self._meet(arrivals, warps)
        for one in arrivals:
            if one.waits:
                self.add(one.pc + 1, one.lanes)

    def _meet(self, arrivals: list[Arrival], warps: Array) -> None:
        vector = self.order.released(warps)
        waiting = [one.lanes.numbers for one in arrivals if one.waits]
        if waiting:
            self.order.acquire(np.unique(np.concatenate(waiting) // WARP), vector)

    def _check_barrier(self, arrivals: list[Arrival], whole: bool) -> None:
        lines = sorted({self.reporter.lines[one.pc] for one in arrivals})
        if whole and len(lines) > 1:
            text = f"threads of one block meet at the barriers of lines {lines[0]} and {lines[1]}"
            self.reporter.findings.add(Kind.DIVERGENCE, lines[1], text, lines[0])

    def cluster(self, lanes: Lanes, pc: int, *, arrives: bool) -> Flow | None:
        """Threads arrive at the barrier of their cluster, or wait for all others to."""
        if arrives:
            self.cluster_phase[lanes.index] += 1
            return None
        self.waiting_cluster[pc] = lanes.union(
            self.waiting_cluster.get(pc, Lanes(lanes.numbers[:0]))
        )
        flow: Flow = []
        for at in list(self.waiting_cluster):
            waiting = self.waiting_cluster.pop(at)
            ready = self._clusters_arrived(waiting)
            done, others = waiting.split(ready)
            if others.size:
                self.waiting_cluster[at] = others
            if done.size:
                self.order.meet_blocks(np.unique(self.grid.block_of[done.index]))
                flow.append((at + 1, done))
        return flow

    def _clusters_arrived(self, lanes: Lanes) -> Array:
        """Whether all living threads of the cluster of each thread have arrived as often as it."""
        size = self.grid.cluster[0] * self.grid.cluster[1] * self.grid.cluster[2]
        least = np.where(self.alive, self.cluster_phase, np.iinfo(np.int64).max)
        lowest = least.reshape(-1, size * self.grid.stride).min(axis=1)
        clusters = self.grid.block_of[lanes.index] // size
        return lowest[clusters] >= self.cluster_phase[lanes.index]

    # -- the end

    def stuck(self) -> None:
        """Report threads that wait for what will not come."""
        for (block, number), arrivals in self.barriers.items():
            arrived = sum(one.lanes.size for one in arrivals)
            needed = arrivals[0].expected or int(self.block_living[block])
            text = f"{arrived} of {needed} threads of a block arrive at barrier {number}"
            line = self.reporter.lines[arrivals[0].pc]
            self.reporter.findings.add(Kind.DEADLOCK, line, text)
        for pc, lanes in self.waiting_cluster.items():
            text = f"{lanes.size} threads wait for others of their cluster"
            self.reporter.findings.add(Kind.DEADLOCK, self.reporter.lines[pc], text)
        for pc, lanes in self.gathering.items():
            text = f"{lanes.size} threads wait for others of their warps"
            self.reporter.findings.add(Kind.DEADLOCK, self.reporter.lines[pc], text)
        for pc, lanes in self.yielded.items():
            line = self.reporter.lines[max(pc - 1, 0)]
            text = f"{lanes.size} threads poll for what no thread will do"
            self.reporter.findings.add(Kind.DEADLOCK, line, text)


def _bits(masks: Array) -> Array:
    """u32 masks as bool[.., 32]."""
    return (masks[:, None] >> np.arange(WARP, dtype=np.uint32) & np.uint32(1)).astype(np.bool_)


def _reduce(arrivals: list[Arrival]) -> None:
    """Give the threads of bar.red their result."""
    given = [one.values for one in arrivals if one.values is not None]
    if not given:
        return
    values = np.concatenate(given)
    for one in arrivals:
        if one.write is None:
            continue
        if one.reduction == "popc":
            result = np.uint32(values.sum())
        else:
            result = np.bool_(values.all() if one.reduction == "and" else values.any())
        one.write(one.lanes, np.full(one.lanes.size, result))
