"""Bitwise instructions: logic, shifts, fields, counts and permutations of bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nybble.backends.gpu.sim.builder import Builder
from nybble.backends.gpu.sim.lanes import Action, Lanes
from nybble.backends.gpu.sim.ops.integer import binary, unary
from nybble.backends.gpu.sim.types import SIGNED, UNSIGNED, Array


def bitwise(b: Builder) -> Action:
    """and, or, xor."""
    compute = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
    return binary(b, b.type(), compute[b.instruction.opcode])


def simple(b: Builder) -> Action:
    """not, cnot and brev."""
    type_ = b.type()
    computes: dict[str, Callable[[Array], Array]] = {
        "not": lambda x: ~x,
        "cnot": lambda x: (x == 0).astype(type_.dtype),
        "brev": lambda x: _reversed(x, type_.bits),
    }
    return unary(b, type_, computes[b.instruction.opcode])


def _reversed(values: Array, bits: int) -> Array:
    made = np.zeros_like(values)
    one = values.dtype.type(1)
    for i in range(bits):
        shift = values.dtype.type(i)
        made |= ((values >> shift) & one) << values.dtype.type(bits - 1 - i)
    return made


def count(b: Builder) -> Action:
    """popc, clz and bfind: a u32 of any integer."""
    type_ = b.type()
    opcode = b.instruction.opcode
    as_shift = b.has("shiftamt")
    read, write = b.source(1, type_), b.target(0, "u32")
    unsigned = UNSIGNED[type_.bits]

    def run(lanes: Lanes) -> None:
        values = np.asarray(read(lanes))
        if opcode == "popc":
            write(lanes, np.bitwise_count(values.view(unsigned)).astype(np.uint32))
            return
        if opcode == "bfind" and type_.kind == "s":
            values = np.where(values < 0, ~values, values)
        top = _top_bit(values.view(unsigned))
        if opcode == "clz" or as_shift:
            made = np.where(top < 0, type_.bits if opcode == "clz" else -1, type_.bits - 1 - top)
        else:
            made = top
        write(lanes, made.astype(np.uint32))

    return run


def _top_bit(values: Array) -> Array:
    """Number of the highest set bit, -1 of zero: int64."""
    wide = values.astype(np.uint64)
    high = (wide >> np.uint64(32)).astype(np.float64)
    low = (wide & np.uint64(0xFFFFFFFF)).astype(np.float64)
    top = np.where(high > 0, np.frexp(high)[1] + 31, np.frexp(low)[1] - 1)
    return np.where(wide == 0, -1, top).astype(np.int64)


def shift(b: Builder) -> Action:
    """shl and shr: a count beyond the width clamps."""
    type_ = b.type()
    left = b.instruction.opcode == "shl"
    read, amount, write = b.source(1, type_), b.source(2, "u32"), b.target(0, type_)
    last = type_.bits - 1
    zero = type_.dtype(0)

    def run(lanes: Lanes) -> None:
        values, count_ = read(lanes), amount(lanes)
        inside = np.minimum(count_, np.uint32(last)).astype(type_.dtype)
        if left:
            made = np.where(count_ > last, zero, values << inside)
        elif type_.kind == "s":
            made = values >> inside
        else:
            made = np.where(count_ > last, zero, values >> inside)
        write(lanes, made)

    return run


def funnel(b: Builder) -> Action:
    """shf: 32 bits out of 64 shifted ones."""
    b.type()
    is_left = b.one_of("l", "r") == "l"
    wraps = b.one_of("wrap", "clamp") == "wrap"
    low, high, amount = b.source(1, "u32"), b.source(2, "u32"), b.source(3, "u32")
    write = b.target(0, "u32")

    def run(lanes: Lanes) -> None:
        both = (high(lanes).astype(np.uint64) << np.uint64(32)) | low(lanes)
        raw = amount(lanes)
        by = (raw & np.uint32(31) if wraps else np.minimum(raw, np.uint32(32))).astype(np.uint64)
        if is_left:
            made = ((both >> (np.uint64(32) - by)) & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        else:
            made = ((both >> by) & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        write(lanes, made)

    return run


def extract_field(b: Builder) -> Action:
    """bfe."""
    type_ = b.type()
    read, start, length = b.source(1, type_), b.source(2, "u32"), b.source(3, "u32")
    write = b.target(0, type_)
    bits = type_.bits
    signed = SIGNED[bits]

    def run(lanes: Lanes) -> None:
        values = np.atleast_1d(read(lanes))
        first = (start(lanes) & np.uint32(255)).astype(np.int64)
        size = (length(lanes) & np.uint32(255)).astype(np.int64)
        left = np.clip(bits - first - size, 0, bits - 1)
        right = np.clip(bits - size, 0, bits - 1)
        end = np.minimum(first, bits - 1)
        if type_.kind == "s":
            moved = np.where(first + size >= bits, values >> end.astype(signed), 0)
            part = (values << left.astype(signed)) >> right.astype(signed)
            made = np.where(first + size >= bits, moved, part)
        else:
            dtype = type_.dtype
            moved = np.where(first >= bits, 0, values >> end.astype(dtype))
            keep = np.where(
                size >= bits,
                ~dtype(0),
                (dtype(1) << np.minimum(size, bits - 1).astype(dtype)) - dtype(1),
            )
            made = moved & keep
        write(lanes, np.where(size == 0, 0, made).astype(type_.dtype))

    return run


def insert_field(b: Builder) -> Action:
    """bfi."""
    type_ = b.type()
    dtype = type_.storage
    field, base = b.source(1, type_), b.source(2, type_)
    start, length, write = b.source(3, "u32"), b.source(4, "u32"), b.target(0, type_)
    bits = type_.bits

    def run(lanes: Lanes) -> None:
        first = (start(lanes) & np.uint32(255)).astype(np.int64)
        size = (length(lanes) & np.uint32(255)).astype(np.int64)
        by = np.minimum(first, bits - 1).astype(dtype)
        ones = np.where(
            size >= bits,
            ~dtype(0),
            (dtype(1) << np.minimum(size, bits - 1).astype(dtype)) - dtype(1),
        )
        mask = np.where(first >= bits, dtype(0), ones << by)
        write(lanes, (base(lanes) & ~mask) | ((field(lanes) << by) & mask))

    return run


def bit_mask(b: Builder) -> Action:
    """bmsk: ones from a bit on."""
    b.type()
    b.has("clamp")
    wraps = b.has("wrap")
    start, length, write = b.source(1, "u32"), b.source(2, "u32"), b.target(0, "b32")

    def run(lanes: Lanes) -> None:
        first, size = start(lanes).astype(np.uint64), length(lanes).astype(np.uint64)
        if wraps:
            first, size = first & np.uint64(31), size & np.uint64(31)
        ones = (np.uint64(1) << np.minimum(size, np.uint64(32))) - np.uint64(1)
        write(lanes, (ones << np.minimum(first, np.uint64(32))).astype(np.uint32))

    return run


def permute(b: Builder) -> Action:
    """prmt: four bytes out of eight."""
    b.type()
    mode = b.one_of("f4e", "b4e", "rc8", "ecl", "ecr", "rc16", default="")
    if mode:
        raise b.fail(f"prmt in mode '{mode}' is not modelled")
    low, high, selector = b.source(1, "u32"), b.source(2, "u32"), b.source(3, "u32")
    write = b.target(0, "u32")

    def run(lanes: Lanes) -> None:
        both = (high(lanes).astype(np.uint64) << np.uint64(32)) | low(lanes)
        chosen = selector(lanes)
        made: Array = np.zeros((), np.uint32)
        for i in range(4):
            nibble = (chosen >> np.uint32(4 * i)) & np.uint32(15)
            byte = (both >> ((nibble & np.uint32(7)).astype(np.uint64) * np.uint64(8))).astype(
                np.uint32
            )
            byte &= np.uint32(255)
            if np.any(nibble & np.uint32(8)):
                sign = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
                byte = np.where(nibble & np.uint32(8), sign, byte)
            made = made | (byte << np.uint32(8 * i))
        write(lanes, made)

    return run


def lookup3(b: Builder) -> Action:
    """lop3: any function of three bits, by its table."""
    b.type()
    combine = b.one_of("or", "and", default="")
    sources = [b.source(i, "u32") for i in (1, 2, 3)]
    function = lop3(b.number(4) & 0xFF)
    target = b.items(0)
    write = b.write(target[0], "u32")
    flag = b.write(target[1], "pred") if len(target) > 1 else None
    also = b.source(5, "pred") if combine else None

    def run(lanes: Lanes) -> None:
        made = function(*(read(lanes) for read in sources))
        write(lanes, made)
        if flag is not None:
            truth = np.asarray(made != 0)
            if also is not None:
                truth = truth | also(lanes) if combine == "or" else truth & also(lanes)
            flag(lanes, truth)

    return run


def lop3(table: int) -> Callable[[Array, Array, Array], Array]:
    """The function of a table: bit `4 a + 2 b + c` of it is the result of bits a, b and c."""
    known: dict[int, Callable[[Array, Array, Array], Array]] = {
        0xEA: lambda a, b, c: (a & b) | c,
        0xC0: lambda a, b, c: a & b,
        0xFC: lambda a, b, c: a | b,
        0x96: lambda a, b, c: a ^ b ^ c,
        0x3C: lambda a, b, c: a ^ b,
        0xF8: lambda a, b, c: a | (b & c),
        0xCA: lambda a, b, c: (a & b) | (~a & c),
        0x6A: lambda a, b, c: (a & b) ^ c,
        0x80: lambda a, b, c: a & b & c,
        0xFE: lambda a, b, c: a | b | c,
    }
    if table in known:
        return known[table]
    terms = [i for i in range(8) if table >> i & 1]

    def compute(a: Array, b: Array, c: Array) -> Array:
        made = np.zeros_like(a & b & c)
        for i in terms:
            made |= (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
        return made

    return compute


TABLE = {
    "not": simple,
    "cnot": simple,
    "brev": simple,
    "popc": count,
    "clz": count,
    "bfind": count,
    "shl": shift,
    "shr": shift,
    "shf": funnel,
    "bfe": extract_field,
    "bfi": insert_field,
    "bmsk": bit_mask,
    "prmt": permute,
    "lop3": lookup3,
    "and": bitwise,
    "or": bitwise,
    "xor": bitwise,
}
