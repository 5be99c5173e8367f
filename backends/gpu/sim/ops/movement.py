"""mov, cvt and cvta, and what is computed of nothing."""

from __future__ import annotations

import numpy as np

from nybble.backends.gpu.sim import floats
from nybble.backends.gpu.sim.builder import Builder, full
from nybble.backends.gpu.sim.lanes import Action, Lanes
from nybble.backends.gpu.sim.machine import window_of
from nybble.backends.gpu.sim.memory import FIRST_BUFFER, SHIFT
from nybble.backends.gpu.sim.ops.floating import ROUNDINGS
from nybble.backends.gpu.sim.ptx import Group
from nybble.backends.gpu.sim.types import Scalar, scalar

_INTEGER_ROUNDINGS = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def move(b: Builder) -> Action:
    """mov: of a register, of the address of a variable, and to or from the parts of a group."""
    type_ = b.type()
    if isinstance(b.operand(0), Group):
        return _split(b, type_)
    if isinstance(b.operand(1), Group):
        return _join(b, type_)
    read, write = b.source(1, type_), b.target(0, type_)

    def run(lanes: Lanes) -> None:
        write(lanes, read(lanes))

    return run


def _split(b: Builder, type_: Scalar) -> Action:
    items = b.items(0)
    part = scalar(f"b{type_.bits // len(items)}")
    read, writes = b.source(1, type_), [b.write(item, part) for item in items]

    def run(lanes: Lanes) -> None:
        values = np.ascontiguousarray(full(read(lanes), lanes))
        parts = values.view(part.storage).reshape(lanes.size, len(writes))
        for i, write in enumerate(writes):
            write(lanes, parts[:, i].copy())

    return run


def _join(b: Builder, type_: Scalar) -> Action:
    items = b.items(1)
    part = scalar(f"b{type_.bits // len(items)}")
    reads, write = [b.read(item, part) for item in items], b.target(0, type_)

    def run(lanes: Lanes) -> None:
        made = np.empty((lanes.size, len(reads)), part.storage)
        for i, read in enumerate(reads):
            made[:, i] = read(lanes)
        write(lanes, made.view(type_.dtype).reshape(-1))

    return run


def convert(b: Builder) -> Action:
    """cvt between numbers, and of two or more into a packed type."""
    types = b.types()
    if len(types) < 2:
        raise b.fail(f"'{b.instruction}' needs two types")
    target, origin = types[-2], types[-1]
    if target.lanes > 1 and origin.lanes == 1:
        return _pack(b, target, origin)
    if origin.lanes > 1:
        return _convert_packed(b, target, origin)
    if target.is_float:
        return _to_float(b, target, origin)
    return _from_float(b, target, origin) if origin.is_float else _resize(b, target, origin)


def _pack(b: Builder, target: Scalar, origin: Scalar) -> Action:
    """Two values into one register, the first one high."""
    mode = b.one_of(*ROUNDINGS, default="rn")
    finite, relu = b.has("satfinite"), b.has("relu")
    high, low = b.source(1, origin), b.source(2, origin)
    write = b.target(0, scalar(f"b{target.bits}"))

    def run(lanes: Lanes) -> None:
        pair = [full(floats.decode(origin, read(lanes)), lanes) for read in (low, high)]
        values = np.stack(pair, axis=-1)
        if relu:
            values = np.where(values < 0, np.float32(0), values)
        write(lanes, floats.encode(target, values, mode, finite=finite))

    return run


def _convert_packed(b: Builder, target: Scalar, origin: Scalar) -> Action:
    """Between two packed types, lane by lane."""
    mode = b.one_of(*ROUNDINGS, default="rn")
    finite, relu = b.has("satfinite"), b.has("relu")
    read = b.source(1, scalar(f"b{origin.bits}"))
    write = b.target(0, scalar(f"b{target.bits}"))

    def run(lanes: Lanes) -> None:
        values = floats.decode(origin, read(lanes))
        if relu:
            values = np.where(values < 0, np.float32(0), values)
        write(lanes, floats.encode(target, values, mode, finite=finite))

    return run


def _to_float(b: Builder, target: Scalar, origin: Scalar) -> Action:
    to_integer = b.one_of(*_INTEGER_ROUNDINGS, default="")
    mode = b.one_of(*ROUNDINGS, default="rn")
    finite, saturates, relu = b.has("satfinite"), b.has("sat"), b.has("relu")
    flushes = b.has("ftz")
    read, write = b.source(1, origin), b.target(0, target)

    def run(lanes: Lanes) -> None:
        raw = np.asarray(read(lanes))
        values = floats.decode(origin, raw) if origin.is_float else raw.astype(np.float64)
        if flushes and origin.name == "f32":
            values = floats.flush(values)
        if to_integer:
            values = _INTEGER_ROUNDINGS[to_integer](values)
        if saturates:
            values = np.where(values > 0, np.minimum(values, 1), 0).astype(values.dtype)
        if relu:
            values = np.where(values < 0, values.dtype.type(0), values)
        if not origin.is_float and origin.bits == 64 and target.bits == 32:
            made = raw.astype(np.float32) if mode == "rn" else floats.encode(target, values, mode)
        else:
            made = floats.encode(target, values, mode, finite=finite)
        write(lanes, floats.flush(made) if flushes and target.name == "f32" else made)

    return run


def _from_float(b: Builder, target: Scalar, origin: Scalar) -> Action:
    """To an integer: out of range clamps, NaN is 0 (or the most negative, of 64 bits)."""
    rounding = _INTEGER_ROUNDINGS[b.one_of(*_INTEGER_ROUNDINGS, default="rzi")]
    b.ignore("sat")
    flushes = b.has("ftz")
    read, write = b.source(1, origin), b.target(0, target)
    info = np.iinfo(target.dtype)
    above = np.float64(info.max)

    def run(lanes: Lanes) -> None:
        values = floats.decode(origin, np.asarray(read(lanes))).astype(np.float64)
        if flushes:
            values = floats.flush(values.astype(np.float32)).astype(np.float64)
        whole = rounding(np.where(np.isnan(values), 0, values))
        inside = np.clip(
            whole, np.float64(info.min), np.nextafter(above, 0) if target.bits == 64 else above
        )
        made = inside.astype(target.dtype)
        made = np.where(whole >= above, target.dtype(info.max), made)
        write(lanes, made)

    return run


def _resize(b: Builder, target: Scalar, origin: Scalar) -> Action:
    saturates = b.has("sat")
    read, write = b.source(1, origin), b.target(0, target)
    info = np.iinfo(target.dtype)
    source = np.iinfo(origin.dtype)
    low, high = max(info.min, source.min), min(info.max, source.max)

    def run(lanes: Lanes) -> None:
        values = read(lanes)
        if saturates:
            values = np.clip(values, origin.dtype(low), origin.dtype(high))
        write(lanes, values.astype(target.dtype))

    return run


def convert_address(b: Builder) -> Action:
    """cvta: between a state space and generic addresses."""
    type_ = b.type()
    to_space = b.has("to")
    window = window_of(b.space())
    read, write = b.source(1, type_), b.target(0, type_)

    def run(lanes: Lanes) -> None:
        values = read(lanes)
        step = values.dtype.type(window)
        write(lanes, values - step if to_space else values + step)

    return run


def is_space(b: Builder) -> Action:
    """isspacep."""
    window = window_of(b.space())
    read, write = b.source(1, "u64"), b.target(0, "pred")

    def run(lanes: Lanes) -> None:
        number = read(lanes) >> np.uint64(SHIFT)
        write(lanes, number == window >> SHIFT if window else number > FIRST_BUFFER)

    return run


TABLE = {"mov": move, "cvt": convert, "cvta": convert_address, "isspacep": is_space}
