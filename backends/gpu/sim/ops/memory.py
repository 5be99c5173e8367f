"""Loads, stores, atomics and fences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nybble.backends.gpu.sim import floats
from nybble.backends.gpu.sim.builder import Builder, full
from nybble.backends.gpu.sim.lanes import Action, Lanes
from nybble.backends.gpu.sim.machine import Machine, by_space
from nybble.backends.gpu.sim.memory import CONSTANTS, GlobalMemory, PrivateMemory, SharedMemory
from nybble.backends.gpu.sim.shadow import GlobalShadow, SharedShadow
from nybble.backends.gpu.sim.types import Array, Scalar, scalar

_VECTORS = {"v2": 2, "v4": 4, "v8": 8}
_SCOPES = ("cta", "cluster", "gpu", "sys", "gl")
_HINTS = (
    "nc", "ca", "cg", "cs", "cv", "lu", "wb", "wt", "L1::*", "L2::*", "unified", "level::*",
    "no_allocate", "evict_first", "evict_last",
)  # fmt: skip
_ORDERINGS = ("weak", "relaxed", "volatile", "acquire", "release", "acq_rel", "sc", "mmio")


def ordering(b: Builder) -> str:
    """The memory ordering of an access, "weak" by default; its scope changes nothing here."""
    b.ignore(*_SCOPES)
    return b.one_of(*_ORDERINGS, default="weak")


def load(b: Builder) -> Action:
    """ld and ldu: one value or a vector."""
    space, order = b.space(), ordering(b)
    base = CONSTANTS if space == "const" else 0
    count = _VECTORS[b.one_of(*_VECTORS, default="v1")] if b.has(*_VECTORS) else 1
    b.ignore(*_HINTS)
    type_ = b.type()
    address = b.address(1)
    writes = b.targets(0, type_)
    if len(writes) != count:
        raise b.fail(f"'{b.instruction}' has {len(writes)} registers for {count} values")
    size = count * type_.bytes
    strong = order != "weak"
    machine = b.machine
    fetch = fetcher(machine, b.pc, space, size, strong=strong)
    acquire = order in ("relaxed", "volatile", "acquire", "mmio")

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        where = address(lanes) + base
        raw = fetch(lanes, where).view(type_.dtype)
        for i, write in enumerate(writes):
            write(lanes, raw[:, i])
        if acquire:
            machine.sync.observe(lanes, where)
            machine.polled = lanes

    return run


def fetcher(
    machine: Machine, pc: int, space: str, size: int, *, strong: bool = False
) -> Callable[[Lanes, Array], Array]:
    """A function that loads `size` bytes at addresses of a space: uint8[lanes, size]."""
    if space:
        return _direct_fetcher(machine, pc, space, size, strong=strong)

    def fetch(lanes: Lanes, addresses: Array) -> Array:
        parts = by_space(addresses)
        if len(parts) == 1:
            return _counted_load(machine, pc, parts[0][0], lanes, parts[0][2], size, strong)
        made = np.zeros((lanes.size, size), np.uint8)
        for one, mask, inner in parts:
            assert mask is not None
            some = lanes.where(mask)
            made[mask] = _counted_load(machine, pc, one, some, inner, size, strong)
        return made

    return fetch


def _direct_fetcher(
    machine: Machine, pc: int, space: str, size: int, *, strong: bool
) -> Callable[[Lanes, Array], Array]:
    return lambda lanes, addresses: _counted_load(
        machine, pc, space, lanes, addresses, size, strong
    )


def _counted_load(
    machine: Machine, pc: int, space: str, lanes: Lanes, addresses: Array, size: int, strong: bool
) -> Array:
    count_access(machine, pc, space, lanes, addresses, size)
    return machine.memory(space).load(lanes, addresses, size, strong=strong)


def count_access(
    machine: Machine, pc: int, space: str, lanes: Lanes, addresses: Array, size: int
) -> None:
    """Count an access to shared or global memory."""
    if space == "shared":
        machine.profile.shared_access(pc, lanes, addresses, size)
    elif space in ("global", ""):
        machine.profile.global_access(pc, lanes, addresses, size)


def store(b: Builder) -> Action:
    """st: one value or a vector."""
    space, order = b.space(), ordering(b)
    count = _VECTORS[b.one_of(*_VECTORS)] if b.has(*_VECTORS) else 1
    b.ignore(*_HINTS)
    type_ = b.type()
    raw = scalar(f"b{type_.bits}")
    address, reads = b.address(0), b.sources(1, raw)
    if len(reads) != count:
        raise b.fail(f"'{b.instruction}' has {len(reads)} registers for {count} values")
    machine = b.machine
    strong = order != "weak"

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        values = np.empty((lanes.size, count), raw.storage)
        for i, read in enumerate(reads):
            values[:, i] = read(lanes)
        where = address(lanes)
        if strong:
            machine.sync.publish(lanes, where, releases=order == "release")
        put(machine, b.pc, space, lanes, where, values.view(np.uint8), strong=strong)

    return run


def put(
    machine: Machine,
    pc: int,
    space: str,
    lanes: Lanes,
    addresses: Array,
    values: Array,
    *,
    strong: bool = False,
) -> None:
    """Store uint8[lanes, size] at addresses of a space."""
    machine.events += 1
    parts = [(space, None, addresses)] if space else by_space(addresses)
    for one, mask, inner in parts:
        some = lanes if mask is None else lanes.where(mask)
        part = values if mask is None else values[mask]
        count_access(machine, pc, one, some, inner, values.shape[1])
        machine.memory(one).store(some, inner, part, strong=strong)


def prefetch(b: Builder) -> Action:
    """prefetch, prefetchu, applypriority, discard and createpolicy: nothing that can be seen."""
    b.ignore("*")
    return lambda lanes: None


def create_policy(b: Builder) -> Action:
    """createpolicy: some number."""
    b.ignore("*")
    write = b.target(0, "b64")
    return lambda lanes: write(lanes, np.zeros((), np.uint64))


# -- atomics

_Combine = Callable[[Array, Array], Array]


def atomic(b: Builder) -> Action:
    """atom and red: what several lanes do to one place happens in the order of their numbers."""
    space, order = b.space(), ordering(b)
    b.ignore("noftz", "L1::*", "L2::*")
    count = _VECTORS[b.one_of(*_VECTORS)] if b.has(*_VECTORS) else 1
    operation = b.one_of(*_COMBINE, "cas", "exch")
    type_ = b.type()
    is_red = b.instruction.opcode == "red"
    first = 0 if is_red else 1
    raw = scalar(f"b{type_.bits}")
    address = b.address(first)
    reads = b.sources(first + 1, raw)
    swap = b.source(first + 2, raw) if operation == "cas" else None
    writes = [] if is_red else b.targets(0, raw)
    combine = _combine(operation, type_)
    machine = b.machine
    is_polling = operation in ("cas", "exch")

    def one_space(lanes: Lanes, where: Array, memory: SharedMemory | GlobalMemory) -> Array:
        positions, right = locate(memory, lanes, where, count * type_.bytes)
        if right:
            cells = memory.shadow.cells(positions, count * type_.bytes)
            mark_atomic(memory.shadow, lanes, cells)
        given = [full(read(lanes), lanes) for read in reads]
        new = full(swap(lanes), lanes) if swap is not None else None
        before = np.empty((lanes.size, count), raw.storage)
        view = memory.bytes.views[type_.bytes]
        for i in range(count):
            places = positions // type_.bytes + i
            before[:, i], changed = _apply(view, places, given[i], new, combine)
            machine.events += changed
        return before

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        where = address(lanes)
        machine.sync.publish(lanes, where, releases=order in ("release", "acq_rel"))
        parts = [(space, None, where)] if space else by_space(where)
        before = np.zeros((lanes.size, count), raw.storage)
        for name, mask, inner in parts:
            memory = machine.memory(name)
            if isinstance(memory, PrivateMemory):
                raise b.fail(f"'{b.instruction}' on {name} memory")
            some = lanes if mask is None else lanes.where(mask)
            count_access(machine, b.pc, name, some, inner, count * type_.bytes)
            before[slice(None) if mask is None else mask] = one_space(some, inner, memory)
        machine.sync.observe(lanes, where)
        if is_polling:
            machine.polled = lanes
        for i, write in enumerate(writes):
            write(lanes, before[:, i])

    return run


def locate(
    memory: SharedMemory | GlobalMemory, lanes: Lanes, where: Array, size: int
) -> tuple[Array, bool]:
    """Positions of atomic accesses."""
    if isinstance(memory, SharedMemory):
        return memory.locate(lanes, where, size, "an atomic access")
    return memory.locate(where, size, "an atomic access")


def mark_atomic(shadow: SharedShadow | GlobalShadow, lanes: Lanes, cells: Array) -> None:
    """Check and note atomic accesses to cells."""
    if isinstance(shadow, SharedShadow):
        shadow.read(lanes.numbers, cells, strong=True)
        shadow.write(lanes.numbers, cells, strong=True)
        return
    shadow.read(lanes, cells, strong=True)
    shadow.write(lanes, cells, strong=True)


def _apply(
    view: Array, places: Array, given: Array, new: Array | None, combine: _Combine
) -> tuple[Array, bool]:
    """Update places in turns, each place once a turn; what was there before, and if it changed."""
    before = np.empty(len(places), view.dtype)
    changed = False
    left = np.arange(len(places))
    while len(left):
        _, first = np.unique(places[left], return_index=True)
        turn = left[first]
        old = view[places[turn]]
        before[turn] = old
        if new is None:
            made = combine(old, given[turn])
        else:
            made = np.where(old == given[turn], new[turn], old)
        view[places[turn]] = made
        changed = changed or bool((made != old).any())
        left = np.delete(left, first)
    return before, changed


def _increment(old: Array, limit: Array) -> Array:
    return np.where(old >= limit, old.dtype.type(0), old + old.dtype.type(1))


def _decrement(old: Array, limit: Array) -> Array:
    return np.where((old == 0) | (old > limit), limit, old - old.dtype.type(1))


_COMBINE: dict[str, _Combine] = {
    "add": lambda old, x: old + x,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "inc": _increment,
    "dec": _decrement,
}


def _combine(operation: str, type_: Scalar) -> _Combine:
    """An operation on the bits of a type."""
    if operation in ("exch", "cas"):
        return lambda old, x: x
    whole = _COMBINE[operation]
    if not type_.is_float:
        dtype, storage = type_.dtype, type_.storage
        return lambda old, x: whole(old.view(dtype), x.view(dtype)).view(storage)
    is_extreme, largest = operation in ("min", "max"), operation == "max"

    def compute(old: Array, x: Array) -> Array:
        return floats.minimum(old, x, largest=largest) if is_extreme else whole(old, x)

    dtype = type_.dtype

    def run(old: Array, x: Array) -> Array:
        left, right = floats.decode(type_, old.view(dtype)), floats.decode(type_, x.view(dtype))
        return floats.encode(type_, compute(left, right)).view(type_.storage)

    return run


def fence(b: Builder) -> Action:
    """fence, membar, and fence.proxy."""
    machine = b.machine
    is_proxy = any(one == "proxy" for one in b.modifiers)
    scope = b.one_of("cta", "cluster", "gpu", "sys", "gl", default="sys")
    b.ignore("acq_rel", "sc", "acquire", "release", "proxy", "alias", "mbarrier_init", "async*",
             "global", "shared::*", "tensormap*", "sync_restrict*", "cluster")  # fmt: skip

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        if is_proxy:
            warps = np.unique(lanes.numbers // 32)
            machine.order.proxies[warps] = machine.order.now
        elif scope != "cta":
            machine.sync.fence(lanes)

    return run


TABLE = {
    "ld": load,
    "ldu": load,
    "st": store,
    "prefetch": prefetch,
    "prefetchu": prefetch,
    "applypriority": prefetch,
    "discard": prefetch,
    "createpolicy": create_policy,
    "atom": atomic,
    "red": atomic,
    "fence": fence,
    "membar": fence,
}
