"""mbarrier instructions, and the addresses of other blocks of a cluster."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nybble.backends.gpu.sim.builder import Builder, full
from nybble.backends.gpu.sim.findings import Kind
from nybble.backends.gpu.sim.lanes import WARP, Action, Lanes
from nybble.backends.gpu.sim.memory import CLUSTER_SHIFT, OFFSETS
from nybble.backends.gpu.sim.types import Array

_BYTES = 8
_PLAIN = ("shared", "shared::cta", "shared::cluster", "b64", "release", "acquire", "relaxed",
          "cta", "cluster")  # fmt: skip


def mbarrier(b: Builder) -> Action:
    """mbarrier: init, inval, arrive, expect_tx, complete_tx, test_wait and try_wait."""
    b.ignore(*_PLAIN)
    kinds: dict[str, Callable[[Builder], Action]] = {
        "init": _initialize,
        "inval": _invalidate,
        "arrive": _arrive,
        "arrive_drop": _arrive,
        "expect_tx": _expect,
        "complete_tx": _expect,
        "test_wait": _wait,
        "try_wait": _wait,
    }
    return kinds[b.one_of(*kinds)](b)


def objects(b: Builder, lanes: Lanes, addresses: Array, *, write: bool = False) -> Array:
    """The positions of mbarrier objects, -1 where there is none; checked as accesses."""
    machine = b.machine
    shared = machine.shared
    positions, right = shared.locate(lanes, addresses & OFFSETS, _BYTES, "an mbarrier")
    if right:
        cells = shared.shadow.cells(positions, _BYTES)
        if write:
            shared.shadow.write(lanes.numbers, cells)
        else:
            shared.shadow.peek(lanes.numbers, cells)
    if write:
        return positions
    known = np.array([int(one) in machine.barriers.made for one in positions], np.bool_)
    if not known.all():
        machine.reporter.add(Kind.UNINITIALIZED, "uses an mbarrier that is not initialized", "mb")
    return np.where(known, positions, -1)


def _initialize(b: Builder) -> Action:
    address, count = b.address(0), b.source(1, "u32")
    machine = b.machine

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        counts = full(count(lanes), lanes)
        for position, n in zip(objects(b, lanes, address(lanes), write=True), counts, strict=True):
            machine.barriers.initialize(int(position), int(n))

    return run


def _invalidate(b: Builder) -> Action:
    address = b.address(0)
    machine = b.machine

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        for position in objects(b, lanes, address(lanes)):
            machine.barriers.made.pop(int(position), None)

    return run


def _arrive(b: Builder) -> Action:
    drop = b.has("arrive_drop")
    b.has("arrive")
    expects = b.has("expect_tx")
    b.ignore("noComplete")
    machine = b.machine
    has_state = len(b) > 1 and "[" not in str(b.operand(0)) and not _is_address(b, 0)
    at = 1 if has_state else 0
    address = b.address(at)
    write = b.target(0, "b64") if has_state else None
    number = b.source(at + 1, "u32") if len(b) > at + 1 else None

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        machine.events += 1
        given = full(number(lanes), lanes) if number is not None else np.ones(lanes.size, np.int64)
        positions = objects(b, lanes, address(lanes))
        phases = np.zeros(lanes.size, np.uint64)
        for position in np.unique(positions[positions >= 0]):
            mask = positions == position
            if expects:
                machine.barriers.expect(int(position), int(given[mask].sum()))
            count = int(mask.sum()) if expects else int(given[mask].sum())
            warps = np.unique(lanes.numbers[mask] // WARP)
            phases[mask] = machine.barriers.arrive(int(position), count, warps, drop=drop)
        if write is not None:
            write(lanes, phases)

    return run


def _is_address(b: Builder, index: int) -> bool:
    return hasattr(b.operand(index), "base")


def _expect(b: Builder) -> Action:
    sign = 1 if b.has("expect_tx") else -1
    address, size = b.address(0), b.source(1, "u32")
    machine = b.machine

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        machine.events += 1
        sizes = full(size(lanes), lanes)
        for position, n in zip(objects(b, lanes, address(lanes)), sizes, strict=True):
            if position >= 0:
                machine.barriers.expect(int(position), sign * int(n))

    return run


def _wait(b: Builder) -> Action:
    """A wait that fails lets other threads run first. Bulk copies end when somebody waits."""
    has_parity = b.has("parity")
    write, address = b.target(0, "pred"), b.address(1)
    given = b.source(2, "u32" if has_parity else "u64")
    machine = b.machine

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        values = full(given(lanes), lanes)
        positions = objects(b, lanes, address(lanes))
        done = np.ones(lanes.size, np.bool_)
        for position in np.unique(positions[positions >= 0]):
            mask = positions == position
            done[mask] = _test(b, int(position), lanes.where(mask), values[mask], has_parity)
        write(lanes, done)
        if not done.all():
            machine.polled = lanes.where(~done)

    return run


def _test(b: Builder, position: int, lanes: Lanes, values: Array, has_parity: bool) -> Array:
    """Whether the phase that each thread names has completed; those threads learn from it."""
    machine = b.machine
    barriers = machine.barriers
    if barriers.land(position):
        machine.events += 1
    results = {
        int(value): barriers.done(
            position, None if has_parity else int(value), int(value) & 1 if has_parity else None
        )
        for value in np.unique(values)
    }
    done = np.array([results[int(value)] for value in values], np.bool_)
    if done.any():
        warps = np.unique(lanes.numbers[done] // WARP)
        machine.order.acquire(warps, barriers.made[position].published)
    return done


def map_address(b: Builder) -> Action:
    """mapa: the address in the shared memory of another block of the cluster."""
    b.ignore("shared::cluster")
    type_ = b.type()
    read, rank, write = b.source(1, type_), b.source(2, "u32"), b.target(0, type_)

    def run(lanes: Lanes) -> None:
        dtype = type_.dtype
        inner = read(lanes) & ~(dtype(0xFF) << dtype(CLUSTER_SHIFT))
        write(lanes, inner | ((rank(lanes).astype(dtype) + dtype(1)) << dtype(CLUSTER_SHIFT)))

    return run


def rank_of(b: Builder) -> Action:
    """getctarank: the block of the cluster that an address belongs to."""
    b.ignore("shared::cluster")
    type_ = b.type()
    read, write = b.source(1, type_), b.target(0, "u32")
    own = b.machine.grid.special["cluster_ctarank"]

    def run(lanes: Lanes) -> None:
        rank = (full(read(lanes), lanes).astype(np.int64) >> CLUSTER_SHIFT) & 0xFF
        write(lanes, np.where(rank > 0, rank - 1, own[lanes.index]).astype(np.uint32))

    return run


TABLE = {"mbarrier": mbarrier, "mapa": map_address, "getctarank": rank_of}
