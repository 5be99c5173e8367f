"""Integer and bitwise instructions, comparison and selection."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nybble.backends.gpu.sim.builder import Builder
from nybble.backends.gpu.sim.findings import Kind
from nybble.backends.gpu.sim.lanes import Action, Lanes
from nybble.backends.gpu.sim.types import SIGNED, UNSIGNED, Array, Scalar, scalar

Binary = Callable[[Array, Array], Array]


def binary(b: Builder, type_: Scalar, compute: Binary) -> Action:
    """d = compute(a, b) of one type."""
    left, right, write = b.source(1, type_), b.source(2, type_), b.target(0, type_)

    def run(lanes: Lanes) -> None:
        write(lanes, compute(left(lanes), right(lanes)))

    return run


def wider(type_: Scalar) -> Scalar:
    """The type of twice as many bits."""
    return scalar(f"{type_.kind}{2 * type_.bits}")


def add(b: Builder) -> Action:
    """add and sub of integers, with saturation, and with carries in and out by `carry`."""
    type_ = b.type()
    is_sum = b.instruction.opcode == "add"
    if type_.lanes > 1:
        return _add_packed(b, type_, is_sum)
    if b.has("sat"):
        return binary(b, type_, _saturated(type_, is_sum))
    if is_sum:
        return binary(b, type_, lambda x, y: x + y)
    return binary(b, type_, lambda x, y: x - y)


def _add_packed(b: Builder, type_: Scalar, is_sum: bool) -> Action:
    dtype = type_.element.dtype

    def compute(x: Array, y: Array) -> Array:
        left = np.ascontiguousarray(np.atleast_1d(x)).view(dtype)
        right = np.ascontiguousarray(np.atleast_1d(y)).view(dtype)
        made = left + right if is_sum else left - right
        return made.view(type_.storage)

    return binary(b, type_, compute)


def _saturated(type_: Scalar, is_sum: bool) -> Binary:
    info = np.iinfo(type_.dtype)

    def compute(x: Array, y: Array) -> Array:
        wide = x.astype(np.int64) + y if is_sum else x.astype(np.int64) - y
        return np.clip(wide, info.min, info.max).astype(type_.dtype)

    return compute


def multiply(b: Builder) -> Action:
    """mul and mul24 of integers."""
    type_ = b.type()
    part = b.one_of("lo", "hi", "wide", default="lo")
    if b.instruction.opcode == "mul24":
        return binary(b, type_, lambda x, y: _low24(x) * _low24(y))
    if part == "lo":
        return binary(b, type_, lambda x, y: x * y)
    left, right = b.source(1, type_), b.source(2, type_)
    result = type_ if part == "hi" else wider(type_)
    write = b.target(0, result)
    compute = high_product(type_) if part == "hi" else wide_product(type_)

    def run(lanes: Lanes) -> None:
        write(lanes, compute(left(lanes), right(lanes)))

    return run


def _low24(values: Array) -> Array:
    shift = values.dtype.type(8)
    return (values << shift) >> shift


def wide_product(type_: Scalar) -> Binary:
    """All bits of a product."""
    dtype = wider(type_).dtype
    return lambda x, y: x.astype(dtype) * y.astype(dtype)


def high_product(type_: Scalar) -> Binary:
    """The upper half of a product."""
    if type_.bits < 64:
        product = wide_product(type_)
        dtype = wider(type_).dtype
        return lambda x, y: (product(x, y) >> dtype(type_.bits)).astype(type_.dtype)

    def compute(x: Array, y: Array) -> Array:
        unsigned = _high64(x.astype(np.uint64), y.astype(np.uint64))
        if type_.kind == "s":
            zero = np.uint64(0)
            unsigned = unsigned - np.where(x < 0, y.astype(np.uint64), zero)
            unsigned = unsigned - np.where(y < 0, x.astype(np.uint64), zero)
        return unsigned.view(type_.dtype)

    return compute


def _high64(x: Array, y: Array) -> Array:
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    x0, x1, y0, y1 = x & low, x >> half, y & low, y >> half
    middle = x1 * y0 + ((x0 * y0) >> half)
    other = x0 * y1 + (middle & low)
    return x1 * y1 + (middle >> half) + (other >> half)


def multiply_add(b: Builder) -> Action:
    """mad of integers: lo, hi and wide."""
    type_ = b.type()
    part = b.one_of("lo", "hi", "wide", default="lo")
    result = wider(type_) if part == "wide" else type_
    left, right = b.source(1, type_), b.source(2, type_)
    addend, write = b.source(3, result), b.target(0, result)
    products: dict[str, Binary] = {
        "lo": lambda x, y: x * y,
        "hi": high_product(type_) if part == "hi" else lambda x, y: x,
        "wide": wide_product(type_) if part == "wide" else lambda x, y: x,
    }
    product = products[part]

    def run(lanes: Lanes) -> None:
        write(lanes, product(left(lanes), right(lanes)) + addend(lanes))

    return run


def divide(b: Builder) -> Action:
    """div and rem of integers, towards zero; by zero gives ones, and is reported."""
    type_ = b.type()
    wants_quotient = b.instruction.opcode == "div"
    reporter = b.machine.reporter

    def compute(x: Array, y: Array) -> Array:
        zero = y == 0
        if np.any(zero):
            reporter.add(Kind.DIVISION, "an integer is divided by zero")
        remainder = np.where(zero, x, np.fmod(x, np.where(zero, type_.dtype(1), y)))
        if not wants_quotient:
            return remainder
        quotient = (x - remainder) // np.where(zero, type_.dtype(1), y)
        return np.where(zero, ~type_.dtype(0), quotient)

    return binary(b, type_, compute)


def extreme(b: Builder) -> Action:
    """min and max of integers, also of two 16-bit ones."""
    type_ = b.type()
    relu = b.has("relu")
    choose = np.minimum if b.instruction.opcode == "min" else np.maximum
    element = type_.element.dtype

    def compute(x: Array, y: Array) -> Array:
        left = np.ascontiguousarray(np.atleast_1d(x)).view(element)
        right = np.ascontiguousarray(np.atleast_1d(y)).view(element)
        made = choose(left, right)
        return (np.maximum(made, element(0)) if relu else made).view(type_.dtype)

    return binary(b, type_, compute)


def bitwise(b: Builder) -> Action:
    """and, or, xor."""
    compute = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
    return binary(b, b.type(), compute[b.instruction.opcode])


def unary(b: Builder, type_: Scalar, compute: Callable[[Array], Array]) -> Action:
    """d = compute(a) of one type."""
    read, write = b.source(1, type_), b.target(0, type_)

    def run(lanes: Lanes) -> None:
        write(lanes, compute(read(lanes)))

    return run


def simple(b: Builder) -> Action:
    """not, cnot, neg, abs and brev of integers."""
    type_ = b.type()
    computes: dict[str, Callable[[Array], Array]] = {
        "not": lambda x: ~x,
        "cnot": lambda x: (x == 0).astype(type_.dtype),
        "neg": lambda x: type_.dtype(0) - x,
        "abs": np.abs,
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
        made = np.uint32(0)
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


def dot4(b: Builder) -> Action:
    """dp4a and dp2a: a dot product of bytes."""
    first, second = b.types()
    is_pairs = b.instruction.opcode == "dp2a"
    high = b.one_of("lo", "hi", default="lo") == "hi"
    left, right = b.source(1, "u32"), b.source(2, "u32")
    result = "s32" if "s" in (first.kind, second.kind) else "u32"
    addend, write = b.source(3, result), b.target(0, result)
    dtype = scalar(result).dtype

    def parts(values: Array, kind: str, size: int) -> Array:
        table = SIGNED if kind == "s" else UNSIGNED
        split = np.ascontiguousarray(np.atleast_1d(values)).view(table[size])
        return split.reshape(-1, 32 // size).astype(np.int64)

    def run(lanes: Lanes) -> None:
        x = parts(left(lanes), first.kind, 16 if is_pairs else 8)
        y = parts(right(lanes), second.kind, 8)
        if is_pairs:
            y = y[:, 2:] if high else y[:, :2]
        write(lanes, (x * y).sum(axis=1).astype(dtype) + addend(lanes))

    return run


_ORDERED: dict[str, Binary] = {
    "eq": np.equal,
    "ne": lambda x, y: (x != y) & (x == x) & (y == y),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
    "equ": lambda x, y: (x == y) | (x != x) | (y != y),
    "neu": np.not_equal,
    "ltu": lambda x, y: ~(x >= y),
    "leu": lambda x, y: ~(x > y),
    "gtu": lambda x, y: ~(x <= y),
    "geu": lambda x, y: ~(x < y),
    "num": lambda x, y: (x == x) & (y == y),
    "nan": lambda x, y: (x != x) | (y != y),
}


def comparison(b: Builder, type_: Scalar) -> Binary:
    """The comparison that a modifier names."""
    name = b.one_of(*_ORDERED)
    if type_.kind == "b" and name not in ("eq", "ne"):
        raise b.fail(f"'{b.instruction}' compares bits by '{name}'")
    if type_.is_float or name != "ne":
        return _ORDERED[name]
    return np.not_equal


def select(b: Builder) -> Action:
    """selp: one of two by a predicate; the other one may have no value."""
    type_ = b.type()
    left, right = b.source(1, type_), b.source(2, type_)
    origins = [b.maybe_register(i) for i in (1, 2)]
    b.carries, b.inputs = False, []
    choice, write, made = b.source(3, "pred"), b.target(0, type_), b.register(b.operand(0))

    def run(lanes: Lanes) -> None:
        chosen = choice(lanes)
        hazards = [None if one is None else one.hazard_of(lanes.index) for one in origins]
        write(lanes, np.where(chosen, left(lanes), right(lanes)))
        if any(one is not None for one in hazards):
            first, second = (0 if one is None else one for one in hazards)
            made.mark(lanes.index, np.where(chosen, first, second))

    return run


def select_sign(b: Builder) -> Action:
    """slct: one of two by the sign of a third."""
    b.ignore("ftz")
    type_, by = b.types()
    left, right, sign = b.source(1, type_), b.source(2, type_), b.source(3, by)
    write = b.target(0, type_)

    def run(lanes: Lanes) -> None:
        write(lanes, np.where(sign(lanes) >= 0, left(lanes), right(lanes)))

    return run


def carry(b: Builder) -> Action:
    """addc, subc, madc: the carry flag is not modelled."""
    raise b.fail(f"'{b.instruction}' works on the carry flag, which is not modelled")


TABLE = {
    "mul24": multiply,
    "and": bitwise,
    "or": bitwise,
    "xor": bitwise,
    "not": simple,
    "cnot": simple,
    "brev": simple,
    "rem": divide,
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
    "dp4a": dot4,
    "dp2a": dot4,
    "selp": select,
    "slct": select_sign,
    "addc": carry,
    "subc": carry,
    "madc": carry,
}
