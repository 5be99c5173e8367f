"""Integer arithmetic, comparison and selection."""

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
    """add and sub of integers, with saturation."""
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


def unary(b: Builder, type_: Scalar, compute: Callable[[Array], Array]) -> Action:
    """d = compute(a) of one type."""
    read, write = b.source(1, type_), b.target(0, type_)

    def run(lanes: Lanes) -> None:
        write(lanes, compute(read(lanes)))

    return run


def simple(b: Builder) -> Action:
    """neg and abs of integers."""
    type_ = b.type()
    if b.instruction.opcode == "abs":
        return unary(b, type_, np.abs)
    return unary(b, type_, lambda x: type_.dtype(0) - x)


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
    "rem": divide,
    "dp4a": dot4,
    "dp2a": dot4,
    "selp": select,
    "slct": select_sign,
    "addc": carry,
    "subc": carry,
    "madc": carry,
}
