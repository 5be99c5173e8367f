"""ldmatrix, stmatrix, movmatrix and mma.sync: fragments of matrices across the lanes of a warp.

Layouts are those of the PTX ISA, section "Warp-level matrix instructions". With g = lane / 4 and
t = lane % 4, register i of A holds row g + 8 (i % 2) and the columns from 4-byte word t + 4 (i / 2)
of a row on; register i of B the same of column g; register i of C and D row g + 8 (i / 2) and
column 2 t + i % 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from nybble.backends.gpu.sim import floats
from nybble.backends.gpu.sim.builder import Builder
from nybble.backends.gpu.sim.lanes import WARP, Action, Lanes, Reader
from nybble.backends.gpu.sim.ptx import Group
from nybble.backends.gpu.sim.types import Array, scalar

_LANE = np.arange(WARP)
_G, _T = _LANE // 4, _LANE % 4
SHAPE = re.compile(r"m(\d+)n(\d+)k(\d+)")
BITS = {"f16": 16, "bf16": 16, "tf32": 32, "e4m3": 8, "e5m2": 8, "s8": 8, "u8": 8, "s4": 4,
        "u4": 4, "b1": 1, "f64": 64}  # fmt: skip
Matrix = Callable[[Array], Array]


def unpack(kind: str, words: Array) -> Array:
    """The elements of 32-bit words [.., n]: [.., n * elements], floats as f32, others as i32."""
    flat = np.ascontiguousarray(words).astype(np.uint32, copy=False)
    shape = (*flat.shape[:-1], -1)
    if kind == "b1":
        return np.unpackbits(flat.view(np.uint8), axis=-1, bitorder="little").astype(np.float32)
    if kind in ("s4", "u4"):
        octets = flat.view(np.uint8)
        nibbles = np.stack([octets & 15, octets >> 4], axis=-1).reshape(shape).astype(np.int32)
        return np.where(nibbles > 7, nibbles - 16, nibbles) if kind == "s4" else nibbles
    if kind in ("s8", "u8"):
        return flat.view(np.int8 if kind == "s8" else np.uint8).astype(np.int32)
    type_ = scalar(kind)
    return floats.decode(type_, flat.view(type_.dtype)).reshape(shape)


def load_matrix(b: Builder) -> Action:
    """ldmatrix: 8x8 matrices of 16 bits, rows of which lanes 8 i .. 8 i + 7 point to."""
    count, transposes = _matrices(b), b.has("trans")
    writes = b.targets(0, "b32")
    address = b.address(1)
    machine = b.machine

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        warps = lanes.warps
        rows = warps.spread(address(lanes)).reshape(len(warps), 4, 8)
        numbers = lanes.numbers.reshape(len(warps), 4, 8)
        for i in range(count):
            where, who = rows[:, i], Lanes(np.sort(numbers[:, i].reshape(-1)))
            machine.profile.shared_rows(b.pc, where)
            raw = machine.shared.load(who, where.reshape(-1) & 0xFFFFFFFF, 16)
            halves = raw.view(np.uint16).reshape(len(warps), 8, 8)
            if transposes:
                halves = halves.transpose(0, 2, 1)
            words = np.ascontiguousarray(halves).view(np.uint32)
            writes[i](lanes, words.reshape(-1))

    return run


def store_matrix(b: Builder) -> Action:
    """stmatrix: the inverse of ldmatrix."""
    count, transposes = _matrices(b), b.has("trans")
    reads = b.sources(1, "b32")
    address = b.address(0)
    machine = b.machine

    def run(lanes: Lanes) -> None:
        machine.order.tick(b.pc)
        machine.events += 1
        warps = lanes.warps
        rows = warps.spread(address(lanes)).reshape(len(warps), 4, 8)
        numbers = lanes.numbers.reshape(len(warps), 4, 8)
        for i in range(count):
            words = np.ascontiguousarray(reads[i](lanes)).reshape(len(warps), 8, 4)
            halves = words.view(np.uint16).reshape(len(warps), 8, 8)
            if transposes:
                halves = np.ascontiguousarray(halves.transpose(0, 2, 1))
            where, who = rows[:, i], Lanes(np.sort(numbers[:, i].reshape(-1)))
            machine.profile.shared_rows(b.pc, where)
            machine.shared.store(who, where.reshape(-1), halves.view(np.uint8).reshape(-1, 16))

    return run


def _matrices(b: Builder) -> int:
    b.ignore("m8n8", "shared", "shared::cta", "b16")
    count = {"x1": 1, "x2": 2, "x4": 4}[b.one_of("x1", "x2", "x4", default="x1")]
    registers = len(b.items(0 if b.instruction.opcode == "ldmatrix" else 1))
    if registers != count:
        raise b.fail(f"'{b.instruction}' has {registers} registers")
    return count


def transpose(b: Builder) -> Action:
    """movmatrix: an 8x8 matrix of 16 bits transposed across a warp."""
    b.ignore("m8n8", "b16", "trans")
    read, write = b.source(1, "b32"), b.target(0, "b32")

    def run(lanes: Lanes) -> None:
        words = np.ascontiguousarray(read(lanes)).reshape(-1, 8, 4)
        halves = words.view(np.uint16).transpose(0, 2, 1)
        write(lanes, np.ascontiguousarray(halves).view(np.uint32).reshape(-1))

    return run


class Fragments:
    """Reads and writes the fragments of an mma of one shape as matrices [warps, ..]."""

    def __init__(self, b: Builder, shape: tuple[int, int, int]) -> None:
        self.b = b
        self.m, self.n, self.k = shape

    def operand(self, index: int, kind: str, *, is_a: bool) -> Callable[[Lanes], Array]:
        """A reader of A as [warps, m, k], or of B as [warps, n, k]."""
        b, per = self.b, 32 // BITS[kind]
        items = b.items(index)
        rows = self.m if is_a else self.n
        expected = rows * self.k * BITS[kind] // (32 * WARP)
        if len(items) != expected:
            raise b.fail(f"'{b.instruction}' takes {expected} registers, not {len(items)}")
        reads = [b.read(item, "b32") for item in items]
        halves = rows // 8
        place_row = _G[:, None] + 8 * (np.arange(len(items)) % halves)
        word = _T[:, None] + 4 * (np.arange(len(items)) // halves)
        words = self.k // per

        def read(lanes: Lanes) -> Array:
            made = np.empty((lanes.size // WARP, rows, words), np.uint32)
            for i, one in enumerate(reads):
                made[:, place_row[:, i], word[:, i]] = _each(one, lanes)
            return unpack(kind, made)

        return read

    def accumulator(self, index: int, kind: str) -> Callable[[Lanes], Array]:
        """A reader of C as [warps, m, n]."""
        b = self.b
        type_ = scalar(kind)
        per = 32 // type_.bits
        reads = b.sources(index, "b32")
        if len(reads) * per * WARP != self.m * self.n:
            raise b.fail(f"'{b.instruction}' has {len(reads)} registers of C")
        rows, columns = self._places()

        def read(lanes: Lanes) -> Array:
            words = np.stack([_each(one, lanes) for one in reads], axis=2)
            values = np.ascontiguousarray(words).view(type_.dtype)
            if kind == "f16":
                values = values.astype(np.float32)
            made = np.empty((values.shape[0], self.m, self.n), values.dtype)
            made[:, rows, columns] = values
            return made

        return read

    def result(self, index: int, kind: str) -> Callable[[Lanes, Array], None]:
        """A writer of D from [warps, m, n]."""
        type_ = scalar(kind)
        writes = self.b.targets(index, "b32")
        rows, columns = self._places()

        def write(lanes: Lanes, values: Array) -> None:
            taken = np.ascontiguousarray(values[:, rows, columns].astype(type_.dtype))
            words = taken.view(np.uint32)
            for i, one in enumerate(writes):
                one(lanes, words[:, :, i].reshape(-1))

        return write

    def _places(self) -> tuple[Array, Array]:
        """Row and column of each value of C: [lanes, values of a lane]."""
        i = np.arange(self.m * self.n // WARP)
        return _G[:, None] + 8 * (i // 2), 2 * _T[:, None] + i % 2


def _each(read: Reader, lanes: Lanes) -> Array:
    """A register as [warps, 32]."""
    values = read(lanes)
    if values.ndim == 0:
        return np.full((lanes.size // WARP, WARP), values)
    return values.reshape(-1, WARP)


def multiply(b: Builder) -> Action:
    """mma.sync, dense."""
    shape, kinds = matrix_shape(b), matrix_types(b)
    if shape[0] != 16 or shape[1] != 8 or "f64" in kinds:
        raise b.fail(f"'{b.instruction}' is not modelled")
    b.ignore("row", "col", "kind::f8f6f4")
    saturates = b.has("satfinite")
    is_xor = b.has("xor")
    b.ignore("and", "popc")
    result, left, right, addend = kinds
    fragments = Fragments(b, shape)
    read_a = fragments.operand(1, left, is_a=True)
    read_b = fragments.operand(2, right, is_a=False)
    read_c = fragments.accumulator(3, addend)
    write = fragments.result(0, result)
    machine = b.machine
    name = str(b.instruction)

    def run(lanes: Lanes) -> None:
        machine.mma[name] += lanes.size // WARP
        if lanes.size % WARP:
            raise b.fail(f"'{b.instruction}' by a part of a warp")
        x, y = read_a(lanes), read_b(lanes)
        products = product(x, 1 - y) + product(1 - x, y) if is_xor else product(x, y)
        total = add_products(read_c(lanes), products, saturates=saturates)
        write(lanes, total)

    return run


def product(x: Array, y: Array) -> Array:
    """x [.., m, k] times y [.., n, k] transposed: integers exact, floats in f32."""
    turned = np.swapaxes(y, -1, -2)
    if x.dtype.kind == "i" or y.dtype.kind == "i":
        return np.matmul(x.astype(np.float64), turned.astype(np.float64))
    return np.matmul(x, turned)


def add_products(addend: Array, products: Array, *, saturates: bool) -> Array:
    """The new accumulator: i32 that wraps or saturates, or f32."""
    if addend.dtype.kind != "i":
        return addend + products
    total = addend.astype(np.int64) + products.astype(np.int64)
    if saturates:
        info = np.iinfo(np.int32)
        return np.clip(total, info.min, info.max)
    return total.astype(np.uint64).astype(np.uint32).view(np.int32)


def matrix_shape(b: Builder) -> tuple[int, int, int]:
    """m, n and k out of the modifiers."""
    for i, modifier in enumerate(b.modifiers):
        if found := SHAPE.fullmatch(modifier):
            b.unread.discard(i)
            return int(found[1]), int(found[2]), int(found[3])
    raise b.fail(f"'{b.instruction}' has no shape")


def matrix_types(b: Builder) -> list[str]:
    """The types of D, A, B and C."""
    names = (*BITS, "f32", "s32")
    found = [i for i, modifier in enumerate(b.modifiers) if modifier in names]
    b.unread.difference_update(found)
    kinds = [b.modifiers[i] for i in found]
    if len(kinds) < 3:
        raise b.fail(f"'{b.instruction}' needs types")
    return kinds


def is_group(b: Builder, index: int) -> bool:
    """Whether an operand is a group of registers."""
    return isinstance(b.operand(index), Group)


TABLE = {
    "ldmatrix": load_matrix,
    "stmatrix": store_matrix,
    "movmatrix": transpose,
    "mma": multiply,
}
