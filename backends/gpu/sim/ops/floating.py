"""Floating-point instructions, and the opcodes that integers and floats share.

Arithmetic rounds exactly as the hardware does. The approximations (`ex2.approx` and its like) are
computed as well as numpy can and rounded, so they differ from the hardware in their last bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nybble.backends.gpu.sim import floats
from nybble.backends.gpu.sim.builder import Builder
from nybble.backends.gpu.sim.lanes import Action, Lanes, Reader, Writer
from nybble.backends.gpu.sim.ops import integer
from nybble.backends.gpu.sim.types import Array, Scalar, scalar

ROUNDINGS = ("rn", "rz", "rm", "rp", "rna")
Function = Callable[..., Array]
One = Callable[[Array], Array]


def either(of_integers: Callable[[Builder], Action], of_floats: Callable[[Builder], Action]):
    """A builder for an opcode that both kinds of numbers have."""

    def build(b: Builder) -> Action:
        return of_floats(b) if any(one.is_float for one in b.types()) else of_integers(b)

    return build


def elementwise(b: Builder, count: int, compute: Function) -> Action:
    """d = compute(a, ..) of `count` sources on decoded values, rounded into the type.

    Modifiers: ftz flushes denormal numbers of f32, sat clamps to [0, 1], relu to 0 and above. Of
    two types the first is that of the result and of the last source, see `_is_mixed`.
    """
    type_, *narrow = b.types() if _is_mixed(b) else (b.type(),)
    kinds = [*narrow * (count - 1), type_] if narrow else [type_] * count
    mode = b.one_of(*ROUNDINGS, default="rn")
    flushes = b.has("ftz") and type_.element.name == "f32"
    saturates = b.has("sat")
    relu = b.has("relu")
    reads = [b.source(i + 1, kind) for i, kind in enumerate(kinds)]
    write = b.target(0, type_)
    plain = type_.name in ("f32", "f64") and mode == "rn"

    if plain and not (flushes or saturates or relu or narrow):
        return _plain(reads, write, type_, compute)

    def run(lanes: Lanes) -> None:
        pairs = zip(kinds, reads, strict=True)
        values = [floats.decode(kind, np.asarray(read(lanes))) for kind, read in pairs]
        if flushes:
            values = [floats.flush(one) for one in values]
        made = compute(*(_exact(values) if mode != "rn" else values))
        if saturates:
            made = np.where(made > 0, np.minimum(made, made.dtype.type(1)), made.dtype.type(0))
        if relu:
            made = np.where(made > 0, made, np.where(np.isnan(made), made, made.dtype.type(0)))
        if flushes:
            made = floats.flush(made if made.dtype == np.float32 else floats.round_f32(made, mode))
        write(
            lanes,
            made if plain and made.dtype == type_.dtype else floats.encode(type_, made, mode),
        )

    return run


def _is_mixed(b: Builder) -> bool:
    """Whether sources but the last are halves of a result in f32 (PTX ISA 8.6, mixed precision)."""
    names = [one.name for one in b.types()]
    mixed = len(names) == 2 and names[0] == "f32" and names[1] in ("f16", "bf16")
    return mixed and b.instruction.opcode in ("add", "sub", "fma")


def _plain(reads: list[Reader], write: Writer, type_: Scalar, compute: Function) -> Action:
    """f32 and f64 to nearest."""
    dtype = type_.dtype

    def run(lanes: Lanes) -> None:
        made = compute(*[read(lanes) for read in reads])
        write(lanes, made if made.dtype == dtype else made.astype(dtype))

    return run


def _exact(values: list[Array]) -> list[Array]:
    """Values in which the operation is exact, or nearly so, before it is rounded."""
    return [one.astype(np.float64) for one in values]


def add(b: Builder) -> Action:
    """add and sub."""
    return elementwise(b, 2, np.add if b.instruction.opcode == "add" else np.subtract)


def multiply(b: Builder) -> Action:
    """mul."""
    return elementwise(b, 2, np.multiply)


def fuse(b: Builder) -> Action:
    """fma, and mad of floats, with one rounding."""
    return elementwise(b, 3, _fused)


def _fused(x: Array, y: Array, z: Array) -> Array:
    return floats.fused(x, y, z) if x.dtype == np.float32 else x * y + z


def extreme(b: Builder) -> Action:
    """min and max."""
    nan = b.has("NaN")
    if b.has("xorsign", "abs"):
        raise b.fail(f"'{b.instruction}' is not modelled")
    largest = b.instruction.opcode == "max"
    count = len(b) - 1

    def compute(first: Array, *others: Array) -> Array:
        for one in others:
            first = floats.minimum(first, one, nan=nan, largest=largest)
        return first

    return elementwise(b, count, compute)


def sign(b: Builder) -> Action:
    """neg and abs: of the sign bit alone."""
    type_ = b.type()
    flushes = b.has("ftz") and type_.name == "f32"
    raw = scalar(f"b{type_.bits}")
    read, write = b.source(1, raw), b.target(0, raw)
    element = type_.element.bits
    bit = sum(1 << (element * i + element - 1) for i in range(type_.lanes))
    mask = raw.storage(bit)
    negates = b.instruction.opcode == "neg"

    def run(lanes: Lanes) -> None:
        values = read(lanes)
        made = values ^ mask if negates else values & ~mask
        if flushes:
            made = floats.flush(made.view(np.float32)).view(np.uint32)
        write(lanes, made)

    return run


def divide(b: Builder) -> Action:
    """div: full and approx are computed as well as rn."""
    b.ignore("full", "approx")
    return elementwise(b, 2, np.divide)


_FUNCTIONS: dict[str, One] = {
    "rcp": lambda x: 1 / x,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x.astype(np.float64)),
    "ex2": lambda x: np.exp2(x.astype(np.float64)),
    "lg2": lambda x: np.log2(x.astype(np.float64)),
    "sin": lambda x: np.sin(x.astype(np.float64)),
    "cos": lambda x: np.cos(x.astype(np.float64)),
    "tanh": lambda x: np.tanh(x.astype(np.float64)),
}


def function(b: Builder) -> Action:
    """rcp, sqrt, rsqrt, ex2, lg2, sin, cos, tanh."""
    b.ignore("approx")
    return elementwise(b, 1, _FUNCTIONS[b.instruction.opcode])


def copy_sign(b: Builder) -> Action:
    """copysign: the magnitude of b with the sign of a."""
    type_ = b.type()
    return integer.binary(b, type_, lambda x, y: np.copysign(y, x))


_TESTS: dict[str, One] = {
    "finite": np.isfinite,
    "infinite": np.isinf,
    "number": lambda x: ~np.isnan(x),
    "notanumber": np.isnan,
    "normal": lambda x: np.isfinite(x) & (np.abs(x) >= np.finfo(x.dtype).tiny),
    "subnormal": lambda x: (x != 0) & (np.abs(x) < np.finfo(x.dtype).tiny),
}


def test_property(b: Builder) -> Action:
    """testp."""
    type_ = b.type()
    test = _TESTS[b.one_of(*_TESTS)]
    read, write = b.source(1, type_), b.target(0, "pred")

    def run(lanes: Lanes) -> None:
        write(lanes, test(read(lanes)))

    return run


def set_predicate(b: Builder) -> Action:
    """setp: one or two predicates of a comparison, combined with a third."""
    type_ = b.type()
    compare = integer.comparison(b, type_)
    combine = b.one_of("and", "or", "xor", default="")
    b.ignore("ftz")
    left, right = b.source(1, type_), b.source(2, type_)
    target = b.items(0)
    write = b.write(target[0], "pred")
    other = b.write(target[1], "pred") if len(target) > 1 else None
    also = b.source(3, "pred") if combine else None
    joined: dict[str, integer.Binary] = {
        "": lambda x, y: x,
        "and": np.logical_and,
        "or": np.logical_or,
        "xor": np.logical_xor,
    }
    join = joined[combine]
    if type_.lanes > 1:
        return _set_two(b, type_, compare)

    def run(lanes: Lanes) -> None:
        truth = np.asarray(compare(_values(type_, left(lanes)), _values(type_, right(lanes))))
        third = also(lanes) if also is not None else truth
        write(lanes, join(truth, third))
        if other is not None:
            other(lanes, join(~truth, third))

    return run


def _values(type_: Scalar, raw: Array) -> Array:
    return floats.decode(type_, raw) if type_.is_float else raw


def _set_two(b: Builder, type_: Scalar, compare: integer.Binary) -> Action:
    """setp of two halves: a predicate of each."""
    left, right = b.source(1, type_), b.source(2, type_)
    writes = [b.write(item, "pred") for item in b.items(0)]

    def run(lanes: Lanes) -> None:
        truth = compare(floats.decode(type_, left(lanes)), floats.decode(type_, right(lanes)))
        for i, write in enumerate(writes):
            write(lanes, truth[:, i])

    return run


def set_number(b: Builder) -> Action:
    """set: all ones or 1.0 where a comparison holds."""
    result, type_ = b.types()
    compare = integer.comparison(b, type_)
    b.ignore("ftz")
    left, right, write = b.source(1, type_), b.source(2, type_), b.target(0, result)
    if result.lanes > 1 or type_.lanes > 1:
        raise b.fail(f"'{b.instruction}' is not modelled")
    one = floats.encode(result, np.ones((), np.float32)) if result.is_float else ~result.storage(0)

    def run(lanes: Lanes) -> None:
        truth = compare(_values(type_, left(lanes)), _values(type_, right(lanes)))
        write(lanes, np.where(truth, one, 0).astype(result.storage).view(result.dtype))

    return run


TABLE = {
    "add": either(integer.add, add),
    "sub": either(integer.add, add),
    "mul": either(integer.multiply, multiply),
    "mad": either(integer.multiply_add, fuse),
    "fma": fuse,
    "div": either(integer.divide, divide),
    "min": either(integer.extreme, extreme),
    "max": either(integer.extreme, extreme),
    "neg": either(integer.simple, sign),
    "abs": either(integer.simple, sign),
    "copysign": copy_sign,
    "testp": test_property,
    "setp": set_predicate,
    "set": set_number,
    **dict.fromkeys(_FUNCTIONS, function),
}
