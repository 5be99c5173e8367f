"""Instructions by which the threads of a warp talk to each other."""

from __future__ import annotations

import numpy as np

from nybble.backends.gpu.sim.builder import Builder
from nybble.backends.gpu.sim.lanes import WARP, Action, Lanes
from nybble.backends.gpu.sim.types import Array, scalar

_LANE = np.arange(WARP, dtype=np.int64)
_BIT = np.uint32(1) << np.arange(WARP, dtype=np.uint32)


def shuffle(b: Builder) -> Action:
    """shfl: a register of another lane, and whether that lane is in range."""
    b.type()
    mode = b.one_of("up", "down", "bfly", "idx")
    b.carries = True
    value = b.spread(b.source(1, "u32"))
    b.carries = False
    by, clamp = (b.spread(b.source(i, "u32")) for i in (2, 3))
    origins, made = b.inputs, b.register(b.items(0)[0])
    target = b.items(0)
    write = b.write(target[0], "u32")
    flag = b.write(target[1], "pred") if len(target) > 1 else None

    def run(lanes: Lanes) -> None:
        warps = lanes.warps
        values = value(lanes)
        distance = by(lanes).astype(np.int64) & 31
        limits = clamp(lanes).astype(np.int64)
        segment = (limits >> 8) & 31
        lowest = _LANE & segment
        highest = lowest | (limits & 31 & ~segment)
        origin, inside = _origin(mode, distance, lowest, highest, segment)
        there = inside & np.take_along_axis(warps.active, np.clip(origin, 0, 31), axis=1)
        origin = np.where(there, origin, _LANE)
        write(lanes, warps.gather(np.take_along_axis(values, origin, axis=1)))
        if origins and origins[0].hazard is not None:
            hazard = warps.spread(origins[0].hazard[lanes.index])
            made.mark(lanes.index, warps.gather(np.take_along_axis(hazard, origin, axis=1)))
        if flag is not None:
            flag(lanes, warps.gather(inside))

    return run


def _origin(
    mode: str, distance: Array, lowest: Array, highest: Array, segment: Array
) -> tuple[Array, Array]:
    """The lane to read, and whether it is in range."""
    match mode:
        case "up":
            origin = _LANE - distance
            return origin, origin >= highest
        case "down":
            origin = _LANE + distance
        case "bfly":
            origin = _LANE ^ distance
        case _:
            origin = lowest | (distance & ~segment)
    return origin, origin <= highest


def vote(b: Builder) -> Action:
    """vote: all, any, uni and ballot."""
    mode = b.one_of("all", "any", "uni", "ballot")
    b.type()
    value = b.spread(b.source(1, "pred"))
    write = b.target(0, "b32" if mode == "ballot" else "pred")

    def run(lanes: Lanes) -> None:
        warps = lanes.warps
        active, truth = warps.active, value(lanes) & warps.active
        if mode == "ballot":
            made: Array = (truth * _BIT).sum(axis=1, dtype=np.uint32)
        elif mode == "any":
            made = np.asarray(truth.any(axis=1))
        else:
            made = np.asarray((truth | ~active).all(axis=1))
            if mode == "uni":
                made = made | ~truth.any(axis=1)
        write(lanes, warps.gather(np.repeat(made[:, None], WARP, axis=1)))

    return run


def match(b: Builder) -> Action:
    """match: which lanes have the same value."""
    wants_all = b.one_of("any", "all") == "all"
    type_ = b.type()
    value = b.spread(b.source(1, type_))
    target = b.items(0)
    write = b.write(target[0], "b32")
    flag = b.write(target[1], "pred") if len(target) > 1 else None

    def run(lanes: Lanes) -> None:
        warps = lanes.warps
        values = value(lanes)
        same = (values[:, :, None] == values[:, None, :]) & warps.active[:, None, :]
        masks = (same * _BIT).sum(axis=2, dtype=np.uint32)
        if wants_all:
            everyone = (warps.active * _BIT).sum(axis=1, dtype=np.uint32)[:, None]
            agree = masks == everyone
            masks = np.where(agree, masks, np.uint32(0))
            if flag is not None:
                flag(lanes, warps.gather(agree))
        write(lanes, warps.gather(masks))

    return run


def reduce(b: Builder) -> Action:
    """redux: of integers, and min and max of f32."""
    mode = b.one_of("add", "min", "max", "and", "or", "xor")
    type_ = b.type()
    absolute, nan = b.has("abs"), b.has("NaN")
    raw = scalar(f"b{type_.bits}") if mode in ("and", "or", "xor") else type_
    value, write = b.spread(b.source(1, raw)), b.target(0, raw)
    neutral = _neutral(mode, raw.dtype)
    functions = {
        "add": np.add, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
        "min": np.fmin if type_.is_float and not nan else np.minimum,
        "max": np.fmax if type_.is_float and not nan else np.maximum,
    }  # fmt: skip

    def run(lanes: Lanes) -> None:
        warps = lanes.warps
        values = np.abs(value(lanes)) if absolute else value(lanes)
        values = np.where(warps.active, values, neutral)
        made = functions[mode].reduce(values, axis=1, dtype=raw.dtype)
        write(lanes, warps.gather(np.repeat(made[:, None], WARP, axis=1)))

    return run


def _neutral(mode: str, dtype: type) -> Array:
    if mode in ("min", "max") and np.issubdtype(dtype, np.floating):
        return np.asarray(np.inf if mode == "min" else -np.inf, dtype)
    if mode == "min":
        return np.asarray(np.iinfo(dtype).max, dtype)
    if mode == "max":
        return np.asarray(np.iinfo(dtype).min, dtype)
    return np.asarray(-1 if mode == "and" else 0).astype(dtype)


def active_mask(b: Builder) -> Action:
    """activemask."""
    b.type()
    write = b.target(0, "b32")

    def run(lanes: Lanes) -> None:
        warps = lanes.warps
        masks = (warps.active * _BIT).sum(axis=1, dtype=np.uint32)
        write(lanes, warps.gather(np.repeat(masks[:, None], WARP, axis=1)))

    return run


def elect(b: Builder) -> Action:
    """elect: the lowest lane of the warp."""
    target = b.items(0)
    lane, flag = b.write(target[0], "b32"), b.write(target[1], "pred")

    def run(lanes: Lanes) -> None:
        warps = lanes.warps
        leader = warps.active.argmax(axis=1)[:, None]
        lane(lanes, warps.gather(np.repeat(leader, WARP, axis=1)).astype(np.uint32))
        flag(lanes, warps.gather(leader == _LANE))

    return run


def nothing(b: Builder) -> Action:
    """setmaxnreg, griddepcontrol, nanosleep, pmevent: nothing that changes results."""
    b.ignore("*")
    machine = b.machine
    rests = b.instruction.opcode == "nanosleep"

    def run(lanes: Lanes) -> None:
        if rests:
            machine.polled = lanes

    return run


TABLE = {
    "shfl": shuffle,
    "vote": vote,
    "match": match,
    "redux": reduce,
    "activemask": active_mask,
    "elect": elect,
    "setmaxnreg": nothing,
    "griddepcontrol": nothing,
    "nanosleep": nothing,
    "pmevent": nothing,
}
