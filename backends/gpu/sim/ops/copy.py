"""cp.async: copies of each thread into shared memory, in groups."""

from __future__ import annotations

import numpy as np

from nybble.backends.gpu.sim.builder import Builder, full
from nybble.backends.gpu.sim.findings import Kind
from nybble.backends.gpu.sim.lanes import WARP, Action, Lanes
from nybble.backends.gpu.sim.ops.bulk import bulk
from nybble.backends.gpu.sim.ops.mbarrier import objects
from nybble.backends.gpu.sim.ops.memory import count_access
from nybble.backends.gpu.sim.types import Array


def copy(b: Builder) -> Action:
    """cp.async and its groups."""
    if not b.has("async"):
        raise b.fail(f"'{b.instruction}' is not modelled")
    if "bulk" in b.modifiers:
        return bulk(b)
    if b.has("mbarrier"):
        return _arrive(b)
    if b.has("commit_group"):
        return _commit(b)
    if b.has("wait_group", "wait_all"):
        return _wait(b)
    return _start(b)


def _arrive(b: Builder) -> Action:
    """cp.async.mbarrier.arrive: taken to happen at once, with what was copied before."""
    no_increment = b.has("noinc")
    b.ignore("arrive", "shared", "shared::cta", "b64")
    address = b.address(0)
    machine = b.machine

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        machine.events += 1
        machine.copies.wait(lanes.numbers, None)
        positions = objects(b, lanes, address(lanes))
        for position in np.unique(positions[positions >= 0]):
            mask = positions == position
            warps = np.unique(lanes.numbers[mask] // WARP)
            count = int(mask.sum()) if no_increment else 0
            machine.barriers.arrive(int(position), count, warps)

    return run


def _commit(b: Builder) -> Action:
    machine = b.machine

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        machine.copies.commit(lanes.numbers)

    return run


def _wait(b: Builder) -> Action:
    machine = b.machine
    pending = b.number(0) if "wait_group" in b.modifiers else None

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        machine.copies.wait(lanes.numbers, pending)
        machine.events += 1

    return run


def _start(b: Builder) -> Action:
    """cp.async.ca and .cg: bytes beyond the source size are zeros; a cache policy comes last."""
    operands = len(b) - (1 if b.has("L2::cache_hint") else 0)
    b.ignore("ca", "cg", "shared", "shared::cta", "global", "L2::*")
    machine = b.machine
    target, origin = b.address(0), b.address(1)
    size = b.number(2)
    if size not in (4, 8, 16):
        raise b.fail(f"'{b.instruction}' of {size} bytes")
    given = b.source(3, "u32") if operands > 3 else None

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        positions, right = machine.shared.locate(lanes, target(lanes), size, "a copy")
        sources = origin(lanes)
        wanted = np.full(lanes.size, size) if given is None else full(given(lanes), lanes)
        wanted = wanted.astype(np.int64)
        if (wanted > size).any():
            machine.reporter.add(Kind.BOUNDS, f"copies more than {size} bytes", "size")
        some = wanted > 0
        data = np.zeros((lanes.size, size), np.uint8)
        if some.any():
            part = lanes if some.all() else lanes.where(some)
            count_access(machine, b.pc, "global", part, sources[some], size)
            data[some] = _load(part, sources[some], wanted[some])
            data[np.arange(size) >= wanted[:, None]] = 0
        count_access(machine, b.pc, "shared", lanes, positions % machine.shared.stride, size)
        if right:
            machine.copies.start(lanes.numbers, positions, data)

    def _load(lanes: Lanes, addresses: Array, wanted: Array) -> Array:
        if (wanted == size).all():
            return machine.globals.load(lanes, addresses, size)
        data = np.zeros((lanes.size, size), np.uint8)
        for step in range(0, size, 1):
            inside = wanted > step
            if inside.any():
                part = lanes.where(inside)
                data[inside, step] = machine.globals.load(part, addresses[inside] + step, 1)[:, 0]
        return data

    return run


TABLE = {"cp": copy}
