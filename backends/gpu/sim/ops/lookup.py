"""lmma: products of tables and bit planes, see `gpu.lookup`; a pseudo-instruction."""

from __future__ import annotations

import numpy as np

from nybble.backends.gpu.lookup import ENTRIES, FEATURES, ROWS, find_lmma, looked_up
from nybble.backends.gpu.sim import floats
from nybble.backends.gpu.sim.builder import Builder
from nybble.backends.gpu.sim.lanes import WARP, Action, Lanes, Reader
from nybble.backends.gpu.sim.types import Array, scalar

_FORMS = (
    "lmma.sync.aligned.m2n64k16.f16.wB.f32.f32, k16.s16.wB.s32.s32, k32.s8.wB.s32.s32, B 1 to 4"
)


def look_up(b: Builder) -> Action:
    """lmma, by a whole warp."""
    form = find_lmma(str(b.instruction))
    if form is None:
        raise b.fail(f"'{b.instruction}' is not modelled; accepted: {_FORMS}")
    b.ignore(*b.modifiers)
    kind = "f32" if form.entry == "f16" else "s32"
    sums, writes = b.sources(3, "b32"), b.targets(0, "b32")
    entries, weights = b.sources(1, "b32"), b.sources(2, "b32")
    counts = [len(writes), len(entries), len(weights), len(sums)]
    if counts != [4, 1, form.registers, 4]:
        raise b.fail(f"'{b.instruction}' takes 4, 1, {form.registers} and 4 registers")
    machine, name, groups = b.machine, str(b.instruction), form.depth // 4
    type_ = scalar(kind)

    def run(lanes: Lanes) -> None:
        machine.mma[name] += lanes.size // WARP
        if lanes.size % WARP:
            raise b.fail(f"'{b.instruction}' by a part of a warp")
        words = np.ascontiguousarray(_each(entries[0], lanes))
        table = _decoded(form.entry, words).reshape(-1, ROWS, groups, ENTRIES)
        bits = np.stack([_each(one, lanes) for one in weights], axis=1)
        found = looked_up(table, _planes(bits, form.bits, form.depth))
        before = np.stack([_each(one, lanes) for one in sums], axis=1).view(type_.dtype)
        places = before.reshape(-1, ROWS, 2, WARP).transpose(0, 1, 3, 2)
        total = _added(places.reshape(-1, ROWS, FEATURES), found)
        made = total.reshape(-1, ROWS, WARP, 2).transpose(0, 1, 3, 2).reshape(-1, 4, WARP)
        for i, write in enumerate(writes):
            write(lanes, np.ascontiguousarray(made[:, i]).view(np.uint32).reshape(-1))

    return run


def _decoded(kind: str, words: Array) -> Array:
    """The entries in 32-bit words [warps, 32] as f64, row by row."""
    if kind == "f16":
        return floats.decode(scalar(kind), words.view(np.uint16)).astype(np.float64)
    return words.view(np.int16 if kind == "s16" else np.int8).astype(np.float64)


def _planes(words: Array, bits: int, depth: int) -> Array:
    """Bits [warps, planes, 64, depth] of registers [warps, registers, 32]."""
    flat = np.ascontiguousarray(words.astype(np.uint32))
    rows = flat.view(np.uint8).reshape(len(flat), -1, WARP, 4)
    halves = np.unpackbits(rows, axis=-1, bitorder="little")
    if depth == 16:
        return halves.reshape(len(flat), bits, FEATURES, depth)
    return halves.reshape(len(flat), bits, 2, WARP, depth).transpose(0, 1, 3, 2, 4).reshape(
        len(flat), bits, FEATURES, depth
    )  # fmt: skip


def _added(before: Array, found: Array) -> Array:
    """Sums of the type of `before`: f32, or integers that wrap."""
    if before.dtype.kind == "f":
        return before + found.astype(np.float32)
    total = before.astype(np.int64) + found.astype(np.int64)
    return total.astype(np.uint64).astype(np.uint32).view(np.int32)


def _each(read: Reader, lanes: Lanes) -> Array:
    """A register as [warps, 32]."""
    values = read(lanes)
    if values.ndim == 0:
        return np.full((lanes.size // WARP, WARP), values)
    return values.reshape(-1, WARP)


TABLE = {"lmma": look_up}
