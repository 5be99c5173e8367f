"""Branches, ends and barriers: instructions after which threads are elsewhere, or wait."""

from __future__ import annotations

import numpy as np

from nybble.backends.gpu.sim.builder import Builder, full
from nybble.backends.gpu.sim.lanes import Action, Flow, Lanes
from nybble.backends.gpu.sim.ptx import Name
from nybble.backends.gpu.sim.threads import Arrival


def branch(b: Builder) -> Action:
    """bra."""
    b.ignore("uni")
    target = b.operand(0)
    assert isinstance(target, Name)
    to = b.machine.entry.labels[target.text]
    return lambda lanes: [(to, lanes)]


def branch_table(b: Builder) -> Action:
    """brx.idx: to one of the labels of a table."""
    b.ignore("idx", "uni")
    table = b.operand(1)
    entry = b.machine.entry
    if not isinstance(table, Name) or table.text not in entry.targets:
        raise b.fail(f"'{b.instruction}' needs the label of a .branchtargets")
    targets = [entry.labels[name] for name in entry.targets[table.text]]
    read = b.source(0, "u32")

    def run(lanes: Lanes) -> Flow:
        index = full(read(lanes), lanes)
        return [(targets[int(one)], lanes.where(index == one)) for one in np.unique(index)]

    return run


def leave(b: Builder) -> Action:
    """ret and exit of a kernel."""
    b.ignore("uni")
    machine = b.machine

    def run(lanes: Lanes) -> Flow:
        machine.threads.end(lanes)
        return []

    return run


def trap(b: Builder) -> Action:
    """trap and brkpt: an error of the kernel."""

    def run(lanes: Lanes) -> Flow:
        raise b.fail(f"{lanes.size} threads executed '{b.instruction}'")

    return run


def barrier(b: Builder) -> Action:
    """bar and barrier of a block: sync, arrive and red; bar.warp.sync; barrier.cluster."""
    if b.has("warp"):
        return _warp_barrier(b)
    if b.has("cluster"):
        return _cluster_barrier(b)
    b.ignore("cta", "aligned")
    kind = b.one_of("sync", "arrive", "red")
    machine = b.machine
    reduction = b.one_of("popc", "and", "or", default="") if kind == "red" else ""
    b.ignore("pred", "u32")
    first = 1 if kind == "red" else 0
    number = b.source(first, "u32")
    has_count = len(b) > first + (2 if kind == "red" else 1)
    count = b.source(first + 1, "u32") if has_count else None
    given = b.source(len(b) - 1, "pred") if kind == "red" else None
    write = b.target(0, "u32" if reduction == "popc" else "pred") if kind == "red" else None

    def run(lanes: Lanes) -> Flow | None:
        machine.order.tick(b.pc)
        numbers = full(number(lanes), lanes)
        expected = int(np.max(count(lanes))) if count is not None else None
        values = full(given(lanes), lanes) if given is not None else None
        arrival = Arrival(lanes, b.pc, kind != "arrive", expected, values, reduction, write)
        return machine.threads.arrive(lanes, b.pc, numbers, arrival)

    return run


def _cluster_barrier(b: Builder) -> Action:
    """barrier.cluster: modelled for clusters of one block, where it is a barrier of the block."""
    b.ignore("cluster", "aligned", "release", "acquire", "relaxed")
    arrives = b.one_of("arrive", "wait") == "arrive"
    machine = b.machine

    def run(lanes: Lanes) -> Flow | None:
        machine.order.tick(b.pc)
        return machine.threads.cluster(lanes, b.pc, arrives=arrives)

    return run


def _warp_barrier(b: Builder) -> Action:
    b.has("sync")
    machine = b.machine

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        machine.order.meet_lanes(lanes.warps.ids)

    return run


TABLE = {
    "bra": branch,
    "brx": branch_table,
    "ret": leave,
    "exit": leave,
    "trap": trap,
    "brkpt": trap,
    "bar": barrier,
    "barrier": barrier,
}
