"""cp.async.bulk: the copies of the tensor memory accelerator, of bytes and of boxes of tensors.

A copy into shared memory ends when a thread first waits at its mbarrier: whoever does not wait sees
what was there before, and is reported. A copy out of shared memory reads at once what it may read
until its group is waited for: writing there earlier is reported as a race.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nybble.backends.gpu.sim.builder import Builder, full
from nybble.backends.gpu.sim.findings import Kind
from nybble.backends.gpu.sim.lanes import WARP, Action, Lanes
from nybble.backends.gpu.sim.memory import CLUSTER_SHIFT, OFFSETS, PARAM_WINDOW, SHIFT
from nybble.backends.gpu.sim.ops.mbarrier import objects
from nybble.backends.gpu.sim.ptx import Address
from nybble.backends.gpu.sim.tensormap import Swizzle, TensorMap
from nybble.backends.gpu.sim.types import Array

_CHUNK = 16
SWIZZLE_MASKS = {Swizzle.NONE: 0, Swizzle.B32: 1, Swizzle.B64: 3, Swizzle.B128: 7}


def swizzled(addresses: Array, mask: int) -> Array:
    """Addresses in shared memory with bits 4 to 6 exchanged by bits 7 to 9."""
    return addresses ^ (((addresses >> 7) & mask) << 4)


def bulk(b: Builder) -> Action:
    """cp.async.bulk and its groups."""
    b.has("async", "bulk")
    if b.has("prefetch"):
        b.ignore("*")
        return lambda lanes: None
    if b.has("commit_group"):
        return _commit(b)
    if b.has("wait_group"):
        return _wait(b)
    b.ignore("tile", "L2::cache_hint", "1d", "2d", "3d", "4d", "5d", "shared::cta", "global")
    into_shared = b.modifiers.index("global") > min(
        (i for i, one in enumerate(b.modifiers) if one.startswith("shared")), default=99
    )
    b.ignore("shared::cluster", "bulk_group", "mbarrier::complete_tx::bytes")
    tensor = b.has("tensor")
    return _load(b, tensor=tensor) if into_shared else _store(b, tensor=tensor)


def _commit(b: Builder) -> Action:
    machine = b.machine

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        for thread in lanes.numbers:
            machine.bulk_groups.setdefault(int(thread), []).append(machine.order.now)

    return run


def _wait(b: Builder) -> Action:
    b.ignore("read")
    pending = b.number(0)
    machine = b.machine

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        for thread in lanes.numbers:
            groups = machine.bulk_groups.get(int(thread), [])
            if len(groups) > pending:
                warp = np.array([thread // WARP])
                machine.order.await_async(warp, groups[-1 - pending])

    return run


@dataclass
class _Box:
    """A box of a tensor at some place: positions [elements] in global memory, and which exist.

    offsets: bytes of each element in a dense box.
    """

    positions: Array
    inside: Array
    offsets: Array


def _box(map_: TensorMap, start: int, corner: list[int]) -> _Box:
    """The box of a map whose tensor begins at a position, at a corner, the innermost first."""
    places = np.zeros((1,), np.int64)
    inside = np.ones((1,), np.bool_)
    for side, size, stride, first in zip(
        reversed(map_.box), reversed(map_.shape), reversed(map_.byte_strides), reversed(corner),
        strict=True,
    ):  # fmt: skip
        index = first + np.arange(side)
        there = (index >= 0) & (index < size)
        places = (places[:, None] + np.where(there, index, 0) * stride).reshape(-1)
        inside = (inside[:, None] & there).reshape(-1)
    return _Box(start + places, inside, np.arange(len(places)) * map_.element)


_Corners = list[tuple[TensorMap, int, list[int]]]
"""For each thread a map, the position of its tensor and the corner of the box."""


def _map_reader(b: Builder, index: int) -> Callable[[Lanes], _Corners]:
    """A reader of [map, {coordinates}]."""
    operand = b.operand(index)
    assert isinstance(operand, Address)
    address = b.address(index)
    corners = [b.read(one, "s32") for one in operand.coordinates]
    machine = b.machine

    def read(lanes: Lanes) -> _Corners:
        columns = [full(one(lanes), lanes) for one in corners]
        made: _Corners = []
        for i, where in enumerate(address(lanes)):
            offset = int(where) & OFFSETS
            if int(where) >> SHIFT not in (0, PARAM_WINDOW) or offset not in machine.maps:
                raise b.fail(f"'{b.instruction}' of a tensor map that is no parameter")
            map_, start = machine.maps[offset]
            if len(corners) != len(map_.shape):
                raise b.fail(f"{len(corners)} coordinates of a tensor map of {len(map_.shape)}")
            positions, _ = machine.globals.locate(np.array([start]), 1, "a tensor map")
            made.append((map_, int(positions[0]), [int(column[i]) for column in columns]))
        return made

    return read


def _load(b: Builder, *, tensor: bool) -> Action:
    """From global into shared memory, announced at an mbarrier."""
    multicast = b.has("multicast::cluster")
    target = b.address(0)
    at = 2 if tensor else 3
    barrier = b.address(at)
    mask = b.source(at + 1, "u32") if multicast else None
    fetch = _tensor_source(b) if tensor else _bytes_source(b)
    machine = b.machine

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        machine.events += 1
        masks = full(mask(lanes), lanes) if mask is not None else np.zeros(lanes.size, np.int64)
        targets, barriers = target(lanes) & OFFSETS, barrier(lanes) & OFFSETS
        for i, (data, offsets, swizzle) in enumerate(fetch(lanes)):
            one = Lanes(lanes.numbers[i : i + 1])
            ranks = [r for r in range(16) if int(masks[i]) >> r & 1] if multicast else [-1]
            for rank in ranks:
                place = int(targets[i])
                at_barrier = int(barriers[i])
                if rank >= 0:
                    place = (place & 0xFFFFFF) | ((rank + 1) << CLUSTER_SHIFT)
                    at_barrier = (at_barrier & 0xFFFFFF) | ((rank + 1) << CLUSTER_SHIFT)
                _begin(b, one, place, at_barrier, data, swizzled_offsets(place, offsets, swizzle))

    return run


def swizzled_offsets(place: int, offsets: Array, mask: int) -> Array:
    """Where bytes at offsets from an address go."""
    inner = place & 0xFFFFFF
    return swizzled(inner + offsets, mask) - inner


def _begin(
    b: Builder, one: Lanes, place: int, at_barrier: int, data: Array, offsets: Array
) -> None:
    """Begin a copy of uint8[chunks, bytes] to offsets from an address in shared memory."""
    machine = b.machine
    shared = machine.shared
    size = data.shape[1]
    repeated = Lanes.repeated(int(one.numbers[0]), len(offsets))
    positions, right = shared.locate(repeated, place + offsets, size, "a bulk copy")
    barrier = int(objects(b, one, np.array([at_barrier]))[0])
    if barrier < 0 or not right:
        return
    cells = np.unique(shared.shadow.cells(positions, size).reshape(-1))
    shared.shadow.start(one.numbers, cells[None, :])
    agent = machine.order.warps + int(one.numbers[0]) // WARP % machine.order.warps

    def land() -> int:
        shared.bytes.scatter(positions, data)
        shared.shadow.land_async(agent, cells)
        return agent

    machine.barriers.copy(barrier, land, data.size)


_Fetched = list[tuple[Array, Array, int]]
"""For each thread: uint8[chunks, bytes], their offsets in a dense box, and the swizzle's mask."""


def _bytes_source(b: Builder) -> Callable[[Lanes], _Fetched]:
    origin, size = b.address(1), b.source(2, "u32")
    machine = b.machine

    def fetch(lanes: Lanes) -> _Fetched:
        made: _Fetched = []
        sizes = full(size(lanes), lanes)
        for i, address in enumerate(origin(lanes)):
            count = int(sizes[i])
            _check_size(b, count)
            offsets = np.arange(0, count, _CHUNK)
            who = Lanes.repeated(int(lanes.numbers[i]), len(offsets))
            made.append((machine.globals.load(who, address + offsets, _CHUNK), offsets, 0))
            machine.profile.bulk(b.pc, count)
        return made

    return fetch


def _check_size(b: Builder, size: int) -> None:
    if size % _CHUNK:
        text = f"a bulk copy of {size} bytes, which is no multiple of 16"
        b.machine.reporter.add(Kind.ALIGNMENT, text, "bulk")


def _tensor_source(b: Builder) -> Callable[[Lanes], _Fetched]:
    maps = _map_reader(b, 1)
    machine = b.machine

    def fetch(lanes: Lanes) -> _Fetched:
        made: _Fetched = []
        for i, (map_, start, corner) in enumerate(maps(lanes)):
            box = _box(map_, start, corner)
            data = np.zeros((len(box.positions), map_.element), np.uint8)
            there = box.positions[box.inside]
            if len(there):
                who = Lanes.repeated(int(lanes.numbers[i]), len(there))
                cells = machine.globals.shadow.cells(there, map_.element)
                machine.globals.shadow.read(who, cells)
                data[box.inside] = machine.globals.bytes.gather(there, map_.element)
            chunks = data.reshape(-1, _CHUNK)
            offsets = np.arange(len(chunks)) * _CHUNK
            made.append((chunks, offsets, SWIZZLE_MASKS[map_.swizzle]))
            machine.profile.bulk(b.pc, data.size)
        return made

    return fetch


def _store(b: Builder, *, tensor: bool) -> Action:
    """From shared into global memory, in bulk groups."""
    source = b.address(1)
    machine = b.machine
    plan = _tensor_target(b) if tensor else _bytes_target(b)

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        machine.events += 1
        places = source(lanes) & OFFSETS
        for i, (positions, inside, size, swizzle) in enumerate(plan(lanes)):
            number = int(lanes.numbers[i])
            count = len(positions) * size // _CHUNK
            offsets = swizzled_offsets(int(places[i]), np.arange(count) * _CHUNK, swizzle)
            who = Lanes.repeated(number, count)
            origins, right = machine.shared.locate(who, places[i] + offsets, _CHUNK, "a bulk copy")
            if not right:
                continue
            shadow = machine.shared.shadow
            shadow.read_async(number // WARP, shadow.cells(origins, _CHUNK).reshape(-1))
            data = machine.shared.bytes.gather(origins, _CHUNK).reshape(len(positions), size)
            _write_global(b, number, positions[inside], data[inside])
            machine.profile.bulk(b.pc, data.size)

    return run


def _write_global(b: Builder, number: int, positions: Array, data: Array) -> None:
    memory = b.machine.globals
    if not len(positions):
        return
    cells = memory.shadow.cells(positions, data.shape[1])
    memory.check_writable(cells, positions)
    memory.shadow.write(Lanes.repeated(number, len(positions)), cells)
    memory.bytes.scatter(positions, data)


_Plan = list[tuple[Array, Array, int, int]]
"""For each thread: positions of elements, which of them exist, their bytes, the swizzle's mask."""


def _bytes_target(b: Builder) -> Callable[[Lanes], _Plan]:
    target, size = b.address(0), b.source(2, "u32")
    machine = b.machine

    def plan(lanes: Lanes) -> _Plan:
        made: _Plan = []
        sizes = full(size(lanes), lanes)
        for i, address in enumerate(target(lanes)):
            _check_size(b, int(sizes[i]))
            offsets = np.arange(0, int(sizes[i]), _CHUNK)
            positions, right = machine.globals.locate(address + offsets, _CHUNK, "a bulk copy")
            made.append((positions, np.full(len(positions), right), _CHUNK, 0))
        return made

    return plan


def _tensor_target(b: Builder) -> Callable[[Lanes], _Plan]:
    maps = _map_reader(b, 0)

    def plan(lanes: Lanes) -> _Plan:
        made: _Plan = []
        for map_, start, corner in maps(lanes):
            box = _box(map_, start, corner)
            made.append((box.positions, box.inside, map_.element, SWIZZLE_MASKS[map_.swizzle]))
        return made

    return plan
