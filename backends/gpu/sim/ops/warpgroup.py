"""wgmma: matrix products of four warps, whose operands are described in shared memory.

Descriptors and layouts are those of the PTX ISA, section "Asynchronous warpgroup level matrix
instructions". An operation reads its operands at once; its results may be used after
wgmma.wait_group, and what it reads may be overwritten then.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nybble.backends.gpu.sim.builder import Builder, full
from nybble.backends.gpu.sim.findings import Kind
from nybble.backends.gpu.sim.lanes import WARP, Action, Lanes
from nybble.backends.gpu.sim.ops.bulk import swizzled
from nybble.backends.gpu.sim.ops.matrix import (
    BITS,
    Fragments,
    add_products,
    is_group,
    matrix_shape,
    matrix_types,
    product,
    unpack,
)
from nybble.backends.gpu.sim.types import Array, scalar
from nybble.backends.gpu.sim.warpgroups import SIZE

_SPANS = {0: 16, 1: 128, 2: 64, 3: 32}
_MASKS = {0: 0, 1: 7, 2: 3, 3: 1}
_ROWS = 64
Operand = Callable[[Lanes], Array]


def wgmma(b: Builder) -> Action:
    """wgmma: fence, mma_async, commit_group and wait_group."""
    machine = b.machine
    if b.has("mma_async"):
        return _multiply(b)
    if b.has("commit_group"):
        return lambda lanes: machine.wgmma.commit(lanes.numbers)
    if b.has("wait_group"):
        return _wait(b)
    b.has("fence")

    def fence(lanes: Lanes) -> None:
        machine.wgmma.touched[lanes.index] = False

    return fence


def _wait(b: Builder) -> Action:
    pending = b.number(0)
    machine = b.machine

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        machine.wgmma.wait(lanes.numbers, pending)

    return run


def _multiply(b: Builder) -> Action:
    shape, kinds = matrix_shape(b), matrix_types(b)
    result, left, right = kinds[:3]
    saturates = b.has("satfinite")
    b.ignore("and", "popc", "sp")
    machine = b.machine
    n, k = shape[1], shape[2]
    flags = [b.number(i) for i in range(4, len(b))]
    scale_a, scale_b = (flags[0], flags[1]) if len(flags) >= 2 else (1, 1)
    transposed = flags[2:]
    in_registers = is_group(b, 1)
    turns_a = bool(transposed[0]) if len(transposed) == 2 and not in_registers else False
    turns_b = bool(transposed[-1]) if transposed else False
    read_a = _registers(b, left, k) if in_registers else _described(b, 1, left, _ROWS, k, turns_a)
    read_b = _described(b, 2, right, n, k, turns_b)
    accumulator = _Accumulator(b, result, n)
    keeps = b.source(3, "pred")
    sources = [b.register(item) for item in b.items(1)] if in_registers else []
    for register in (*accumulator.registers, *sources):
        register.watched = machine.wgmma.touched
    name = str(b.instruction)

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        if lanes.size % SIZE or not _are_warpgroups(lanes):
            raise b.fail(f"'{b.instruction}' by a part of a warpgroup")
        machine.mma[name] += lanes.size // SIZE
        if machine.wgmma.touched[lanes.index].any():
            text = "registers of a wgmma were written after the last wgmma.fence"
            machine.reporter.add(Kind.ASYNC, text, "fence")
        products = product(read_a(lanes), read_b(lanes)) * (scale_a * scale_b)
        kept = full(keeps(lanes), lanes).reshape(-1, SIZE)[:, 0]
        before = accumulator.read(lanes, kept)
        accumulator.write(lanes, add_products(before, products, saturates=saturates))
        machine.wgmma.start(accumulator.registers, sources, lanes.numbers)

    return run


def _are_warpgroups(lanes: Lanes) -> bool:
    first = lanes.numbers[::SIZE]
    return bool((lanes.numbers[SIZE - 1 :: SIZE] - first == SIZE - 1).all())


def _registers(b: Builder, kind: str, k: int) -> Operand:
    """A from registers: each warp holds 16 rows."""
    read = Fragments(b, (16, 8, k)).operand(1, kind, is_a=True)

    def rows(lanes: Lanes) -> Array:
        made = read(lanes)
        return made.reshape(-1, _ROWS, made.shape[-1])

    return rows


def _described(b: Builder, index: int, kind: str, rows: int, k: int, turned: bool) -> Operand:
    """A matrix [warpgroups, rows, k] by a descriptor. turned: rows lie along memory, not k."""
    descriptor = b.source(index, "u64")
    bits = BITS[kind]
    if turned and bits != 16:
        raise b.fail(f"'{b.instruction}' of transposed {kind}")

    def read(lanes: Lanes) -> Array:
        words = full(descriptor(lanes), lanes)[::SIZE]
        made: list[Array] = []
        for i, word in enumerate(words):
            chunks = _chunk_offsets(b, int(word), rows, k * bits // 8, turned)
            made.append(_gather(b, int(lanes.numbers[i * SIZE]), chunks))
        raw = np.stack(made)
        if not turned:
            data = np.ascontiguousarray(raw.reshape(len(made), rows, -1))
            return unpack(kind, data.view(np.uint32))
        data = raw.view(scalar(kind).dtype)
        lines = data.reshape(len(made), k, rows)
        values = unpack(kind, np.ascontiguousarray(lines).view(np.uint32))
        return np.swapaxes(values, 1, 2)

    return read


def _chunk_offsets(b: Builder, word: int, rows: int, bytes_k: int, turned: bool) -> Array:
    """Addresses of the 16-byte chunks of a matrix, row by row (of k, if it is turned)."""
    start = (word & 0x3FFF) << 4
    leading = ((word >> 16) & 0x3FFF) << 4
    stride = ((word >> 32) & 0x3FFF) << 4
    if (word >> 49) & 7:
        raise b.fail(f"'{b.instruction}' with a base offset in its descriptor")
    mode = word >> 62
    span = _SPANS[mode]
    if turned:
        return swizzled(
            start + _turned_offsets(rows, bytes_k // 2, span, leading, stride), _MASKS[mode]
        )
    row = np.arange(rows)[:, None]
    column = np.arange(0, bytes_k, 16)[None, :]
    offsets = row // 8 * stride + row % 8 * span + column % span + column // span * leading
    return swizzled(start + offsets, _MASKS[mode])


def _turned_offsets(rows: int, k: int, span: int, leading: int, stride: int) -> Array:
    line = np.arange(k)[:, None]
    column = np.arange(0, rows * 2, 16)[None, :]
    if span == 16:
        leading, stride = stride, leading
    return line // 8 * stride + line % 8 * span + column % span + column // span * leading


def _gather(b: Builder, thread: int, chunks: Array) -> Array:
    """The 16-byte chunks at addresses: uint8[.., chunks * 16]."""
    machine = b.machine
    flat = chunks.reshape(-1)
    who = Lanes.repeated(thread, len(flat))
    positions, right = machine.shared.locate(who, flat, 16, "a wgmma operand")
    if right:
        shadow = machine.shared.shadow
        shadow.read_async(thread // WARP, np.unique(shadow.cells(positions, 16)))
    return machine.shared.bytes.gather(positions, 16).reshape(chunks.shape[0], -1)


class _Accumulator:
    """D of a wgmma as [warpgroups, 64, n]: warp w of the group holds rows 16 w .. 16 w + 15."""

    def __init__(self, b: Builder, kind: str, n: int) -> None:
        self.b = b
        self.type = scalar(kind)
        items = b.items(0)
        self.registers = [b.register(item) for item in items]
        if len(items) * 32 // self.type.bits * SIZE != _ROWS * n:
            raise b.fail(f"'{b.instruction}' has {len(items)} registers of D")
        lane = np.arange(SIZE)
        i = np.arange(_ROWS * n // SIZE)
        self.rows = (lane // WARP * 16 + lane % WARP // 4)[:, None] + 8 * (i // 2 % 2)
        self.columns = 2 * (lane % 4)[:, None] + 8 * (i // 4) + i % 2
        self.shape = (_ROWS, n)

    def read(self, lanes: Lanes, kept: Array) -> Array:
        """What was accumulated, zeros for groups that begin anew."""
        groups = lanes.size // SIZE
        dtype = np.int32 if self.type.kind == "s" else np.float32
        made = np.zeros((groups, *self.shape), dtype)
        if not kept.any():
            return made
        for register in self.registers:
            if register.hazard is not None:
                found = register.hazard[lanes.index].reshape(-1, SIZE)[kept]
                self.b.check_hazard(register, found & 1)
        words = np.stack(
            [one.data.view(np.uint32)[lanes.index].reshape(-1, SIZE) for one in self.registers], 2
        )
        values = words.view(self.type.dtype).astype(dtype)
        made[:, self.rows, self.columns] = values
        return np.where(kept[:, None, None], made, made.dtype.type(0))

    def write(self, lanes: Lanes, values: Array) -> None:
        """Put the results into registers."""
        taken = np.ascontiguousarray(values[:, self.rows, self.columns].astype(self.type.dtype))
        words = taken.view(np.uint32)
        for i, register in enumerate(self.registers):
            register.data.view(np.uint32)[lanes.index] = words[:, :, i].reshape(-1)


TABLE = {"wgmma": wgmma}
