"""Elementary functions of generated linalg loops as arithmetic: no call of libm is left.

Operations of the math dialect that LLVM turns into instructions (INLINE) stay; those in EXPANDED
become f32 arithmetic; there is no code for any other.
"""

from collections.abc import Callable
from math import pi

from xdsl.dialects import arith
from xdsl.dialects.builtin import Float32Type, FloatAttr, IntegerAttr, ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import Rewriter

from nybble.backends.cpu.kernels import mathlib
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, i32
from nybble.backends.cpu.kernels.loops import tree
from nybble.dialects.errors import NybbleError
from nybble.dialects.locations import location_of

INLINE = frozenset(
    f"math.{name}" for name in ("absf", "absi", "ceil", "copysign", "floor", "fma", "roundeven",
                                "rsqrt", "sqrt", "trunc")
)  # fmt: skip
MAX_POWER = 16
_POWERS = frozenset({"math.powf", "math.fpowi"})

# x P(x^2) / Q(x^2) on [-4, 4]: Eigen's generic erf (MathFunctionsImpl.h).
_ERF_LIMIT = 3.9
_ERF_NUMERATOR = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_DENOMINATOR = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
# sin and cos on [-pi/4, pi/4]: Cephes sinf and cosf (S. Moshier); pi/2 in three parts.
_SINE = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COSINE = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
_HALF_PI = (1.5703125, 4.8375129699707031e-4, 7.5497899548918861e-8)


def exp(b: KernelBuilder, x: Value) -> Value:
    """e^x with infinities and small numbers as IEEE has them, within 6e-7 relative."""
    half = mathlib.exp(b, x * 0.5)
    return half * half


def log(b: KernelBuilder, x: Value) -> Value:
    """Natural logarithm; -infinity at 0 and NaN below."""
    found = b.select(x < 0.0, b.const(float("nan"), f32), mathlib.log(b, x))
    return b.select(x.eq(0.0), b.const(float("-inf"), f32), found)


def log1p(b: KernelBuilder, x: Value) -> Value:
    """log(1 + x), corrected for the rounding of 1 + x (Goldberg 1991, theorem 4)."""
    one_more = x + 1.0
    rest = one_more - 1.0
    corrected = log(b, one_more) * x / b.select(rest.eq(0.0), b.const(1.0, f32), rest)
    infinite = x.eq(float("inf"))
    return b.select(infinite, x, b.select(rest.eq(0.0), x, corrected))


def expm1(b: KernelBuilder, x: Value) -> Value:
    """e^x - 1; for small x by tanh: `e^x - 1 = (e^x + 1) tanh(x / 2)`."""
    power = exp(b, x)
    near = (power + 1.0) * mathlib.tanh(b, x * 0.5)
    return b.select(b.abs(x) < 1.0, near, power - 1.0)


def erf(b: KernelBuilder, x: Value) -> Value:
    """The error function, within 5e-7 absolute."""
    limit = b.const(_ERF_LIMIT, f32)
    clamped = b.max(-limit, b.min(limit, x))
    square = clamped * clamped
    numerator = clamped * mathlib.polynomial(b, square, _ERF_NUMERATOR)
    return numerator / mathlib.polynomial(b, square, _ERF_DENOMINATOR)


def sine(b: KernelBuilder, x: Value, quadrants: int = 0) -> Value:
    """sin(x + quadrants pi / 2), within 2e-7 absolute for |x| up to 10,000."""
    turns = b.roundeven(x * (2 / pi))
    r = x
    for part in _HALF_PI:
        r = b.fma(turns, b.const(-part, f32), r)
    square = r * r
    odd = b.fma(mathlib.polynomial(b, square, _SINE) * square, r, r)
    even = mathlib.polynomial(b, square, _COSINE) * (square * square)
    even = b.fma(square, b.const(-0.5, f32), even) + 1.0
    quadrant = mathlib.round_to_int(b, turns) + b.const(quadrants, i32)
    value = b.select((quadrant & 1).eq(0), odd, even)
    return b.select((quadrant & 2).eq(0), value, -value)


def cosine(b: KernelBuilder, x: Value) -> Value:
    """cos(x), see `sine`."""
    return sine(b, x, 1)


EXPANDED: dict[str, Callable[[KernelBuilder, Value], Value]] = {
    "math.exp": exp,
    "math.exp2": lambda b, x: exp(b, x * mathlib.LN_2),
    "math.expm1": expm1,
    "math.log": log,
    "math.log2": lambda b, x: log(b, x) * mathlib.LOG2_E,
    "math.log1p": log1p,
    "math.tanh": mathlib.tanh,
    "math.erf": erf,
    "math.sin": sine,
    "math.cos": cosine,
}


def supported() -> str:
    """The operations that there is code for, for a message."""
    return ", ".join(sorted((*INLINE, *EXPANDED, *_POWERS)))


def fault_of(op: Operation) -> str | None:
    """Why there is no code for an operation of the math dialect; None if there is."""
    if op.name in INLINE:
        return None
    if op.name in _POWERS and power_of(op) is None:
        return f"'{op.name}' with an exponent that is no constant multiple of 1/2 up to {MAX_POWER}"
    if op.name not in _POWERS and op.name not in EXPANDED:
        return f"no code is generated for '{op.name}'; there is for {supported()}"
    if not isinstance(op.operands[0].type, Float32Type):
        return f"no code is generated for '{op.name}' on {op.operands[0].type}, only on f32"
    return None


def power_of(op: Operation) -> float | None:
    """The constant exponent of a power, if there is code for it."""
    source = op.operands[1].owner
    if not isinstance(source, arith.ConstantOp):
        return None
    if not isinstance(source.value, FloatAttr | IntegerAttr):
        return None
    power = float(source.value.value.data)
    return power if abs(power) <= MAX_POWER and (2 * power).is_integer() else None


def power(b: KernelBuilder, x: Value, exponent: float) -> Value:
    """x to a multiple of 1/2: a product, maybe by the root, maybe inverted."""
    whole = int(abs(exponent))
    factors = [x] * whole
    if abs(exponent) != whole:
        factors.append(b.sqrt(x))
    product = tree(factors, lambda p, q: p * q) if factors else b.const(1.0, f32)
    return 1.0 / product if exponent < 0 else product


def expand_math(module: ModuleOp) -> None:
    """Replace the operations of EXPANDED in scalar code by arithmetic, in place."""
    for op in list(module.walk()):
        if not op.name.startswith("math.") or op.name in INLINE:
            continue
        fault = fault_of(op)
        if fault is not None:
            raise NybbleError(fault, location=location_of(op))
        exponent = power_of(op) if op.name in _POWERS else None
        replace(op, lambda b, op=op, exponent=exponent: _expanded(b, op, exponent))


def _expanded(b: KernelBuilder, op: Operation, exponent: float | None) -> Value:
    x = Value(b, op.operands[0])
    return EXPANDED[op.name](b, x) if exponent is None else power(b, x, exponent)


def replace(op: Operation, emit: Callable[[KernelBuilder], Value | None]) -> None:
    """Put what `emit` builds in the place of an operation; its result is the value returned."""
    b = KernelBuilder("", [])
    value = emit(b)
    b.close_entry()
    made = list(b.entry.ops)
    for inner in made:
        inner.detach()
    results: list[SSAValue | None] = [] if value is None else [value.ssa]
    Rewriter.replace_op(op, made, results)
