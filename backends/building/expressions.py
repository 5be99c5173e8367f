"""Operations, loops and branches on values: what kernels of every backend are written with.

Construction only: nothing is printed, compiled or measured here. Integer semantics (when `<`, `>>`
and `//` are signed) are those of `values`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.dialects import arith, llvm, math, vector
from xdsl.dialects.builtin import (
    DenseArrayBase,
    IntegerAttr,
    IntegerType,
    StringAttr,
    bf16,
    f16,
    f32,
    f64,
)
from xdsl.dialects.utils import FastMathFlag
from xdsl.ir import Attribute, Operation

from nybble.backends.building.control import For, If, While
from nybble.backends.building.values import (
    FLOATS,
    NO_FASTMATH,
    Emitter,
    Operand,
    Value,
    element_type,
    i1,
    i8,
    i16,
    i32,
    i64,
    index,
    lanes,
    vec,
    with_element,
)
from nybble.dialects import upstream

_REASSOCIATE: dict[str, Attribute] = {"fastmath": arith.FastMathFlagsAttr((FastMathFlag.REASSOC,))}
_WIDTHS = {str(t): w for t, w in ((f16, 16), (bf16, 16), (f32, 32), (f64, 64))}


class Expressions(Emitter):
    """Operations on values: what a kernel, or a function of vectors, computes with."""

    # -- elementwise

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c with one rounding."""
        return self.emit(math.FmaOp, (a, b, c), c.type, NO_FASTMATH)

    def max(self, a: Value, b: Operand) -> Value:
        """a if a > b else b: with a NaN on either side, b."""
        other = self.value(b, a.type)
        return self.select(a > other, a, other)

    def min(self, a: Value, b: Operand) -> Value:
        """a if a < b else b: with a NaN on either side, b."""
        other = self.value(b, a.type)
        return self.select(a < other, a, other)

    def unary(self, op: type[Operation], value: Value) -> Value:
        """An operation of the math dialect on one float operand, e.g. `math.SqrtOp`."""
        return self.emit(op, (value,), value.type, NO_FASTMATH)

    def abs(self, value: Value) -> Value:
        """Absolute value of floats."""
        return self.unary(math.AbsFOp, value)

    def sqrt(self, value: Value) -> Value:
        """Square root (correctly rounded)."""
        return self.unary(math.SqrtOp, value)

    def roundeven(self, value: Value) -> Value:
        """Nearest whole number, halves to even, still a float."""
        return self.unary(math.RoundEvenOp, value)

    def count_bits(self, value: Value) -> Value:
        """How many bits of an integer are set, in every lane."""
        return self.emit(math.CtPopOp, (value,), value.type)

    def trailing_zeros(self, value: Value) -> Value:
        """How many bits of an integer are clear below its lowest set one."""
        return self.emit(math.CountTrailingZerosOp, (value,), value.type)

    # -- types

    def broadcast(self, scalar: Value, lanes: int) -> Value:
        """A vector of `lanes` copies."""
        return self.emit(vector.BroadcastOp, (scalar,), vec(lanes, scalar.type))

    def bitcast(self, value: Value, type_: Attribute) -> Value:
        """The same bits as another type of as many bits."""
        is_vector = lanes(value.type) > 1 or lanes(type_) > 1
        return self.emit(vector.BitcastOp if is_vector else arith.BitcastOp, (value,), type_)

    def to_index(self, value: Value) -> Value:
        """A signed integer as an index."""
        return self.emit(arith.IndexCastOp, (value,), index)

    def from_index(self, value: Value, type_: Attribute) -> Value:
        """An index as an integer."""
        return self.emit(arith.IndexCastOp, (value,), type_)

    def sext(self, value: Value, element: Attribute) -> Value:
        """Sign-extend integers to the wider `element`."""
        return self._cast(upstream.ExtSIOp, value, element)

    def zext(self, value: Value, element: Attribute) -> Value:
        """Zero-extend integers to the wider `element`."""
        return self._cast(upstream.ExtUIOp, value, element)

    def trunc(self, value: Value, element: Attribute) -> Value:
        """The low bits of integers."""
        return self._cast(upstream.TruncIOp, value, element)

    def sitofp(self, value: Value, element: Attribute = f32) -> Value:
        """Signed integers to floats."""
        return self._cast(upstream.SIToFPOp, value, element)

    def uitofp(self, value: Value, element: Attribute = f32) -> Value:
        """Unsigned integers to floats."""
        return self._cast(upstream.UIToFPOp, value, element)

    def fptosi(self, value: Value, element: Attribute = i32) -> Value:
        """Floats to signed integers, towards zero; out of range is undefined."""
        return self._cast(upstream.FPToSIOp, value, element)

    def to_float(self, value: Value, element: Attribute = f32) -> Value:
        """Floats to another float type: exact when widening, to nearest even when narrowing."""
        source = element_type(value.type)
        if source == element:
            return value
        if element == bf16:
            return self._to_bf16(self.to_float(value))
        widen = _WIDTHS[str(source)] < _WIDTHS[str(element)]
        return self._cast(arith.ExtFOp if widen else arith.TruncFOp, value, element)

    def _to_bf16(self, value: Value) -> Value:
        """f32 to bf16 by integers: without an instruction for it LLVM would call a library."""
        bits = self.bitcast(value, with_element(value.type, i32))
        rounded = (bits + 0x7FFF + (bits.shr(16) & 1)).shr(16)
        is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
        halves = self.select(is_nan, bits.shr(16) | 0x40, rounded)
        return self.bitcast(self.trunc(halves, i16), with_element(value.type, bf16))

    def _cast(self, op: type[Operation], value: Value, element: Attribute) -> Value:
        return self.emit(op, (value,), with_element(value.type, element))

    # -- vectors

    def reduce(self, kind: str, value: Value) -> Value:
        """One number out of a vector; a float sum is taken as a tree, the same in every run.

        `kind`: "add", "mul"; integers "minsi", "maxsi", "or", ..; floats "minnumf", "maxnumf".
        """
        fastmath = _REASSOCIATE if isinstance(element_type(value.type), FLOATS) else NO_FASTMATH
        properties = {"kind": vector.CombiningKindAttr(vector.CombiningKindFlag(kind)), **fastmath}
        return self.emit(vector.ReductionOp, (value,), element_type(value.type), properties)

    def extract(self, value: Value, lane: int) -> Value:
        """One lane of a vector."""
        position = DenseArrayBase.from_list(i64, [lane])
        return self.emit(
            vector.ExtractOp, (value,), element_type(value.type), {"static_position": position}
        )

    def slice(self, value: Value, offset: int, size: int) -> Value:
        """Lanes `offset .. offset + size` of a vector."""
        made = upstream.ExtractStridedSliceOp(value.ssa, offset, size)
        self.block.add_op(made)
        return Value(self, made.results[0])

    def shuffle(self, a: Value, b: Value, mask: Sequence[int]) -> Value:
        """Lanes picked from `a` (0 ..) and `b` (lanes(a) ..)."""
        result = vec(len(mask), element_type(a.type))
        properties = {"mask": DenseArrayBase.from_list(i64, [*mask])}
        return self.emit(vector.ShuffleOp, (a, b), result, properties)

    def interleave(self, a: Value, b: Value) -> Value:
        """a0 b0 a1 b1 .."""
        result = vec(2 * lanes(a.type), element_type(a.type))
        return self.emit(upstream.InterleaveOp, (a, b), result)

    def first_lanes(self, count: Value, lanes: int) -> Value:
        """A mask whose first `count` (an index; more than `lanes` is all) bits are set."""
        return self.emit(vector.CreateMaskOp, (count,), vec(lanes, i1))

    def bit(self, value: bool) -> Value:
        """A constant bit."""
        return self.const(int(value), i1)

    # -- machine

    def intrinsic(self, name: str, operands: Sequence[Value], result: Attribute) -> Value:
        """Call an LLVM intrinsic such as "llvm.x86.avx512.vpdpbusd.512"."""
        properties = _intrinsic_properties(name, len(operands))
        return self.emit(llvm.CallIntrinsicOp, operands, result, properties)

    def intrinsic_by_parts(
        self, name: str, count: int, operands: Sequence[Value], result: Attribute
    ) -> Value:
        """Call an intrinsic on each of `count` equal parts of vectors; the results joined."""
        made = vec(lanes(result) // count, element_type(result))
        sizes = [lanes(operand.type) // count for operand in operands]
        parts: list[Value] = []
        for i in range(count):
            pairs = zip(operands, sizes, strict=True)
            part = [self.slice(o, i * n, n) if count > 1 else o for o, n in pairs]
            parts.append(self.intrinsic(name, part, made))
        return self.join(parts)

    def join(self, parts: Sequence[Value]) -> Value:
        """Equally long vectors, a power of two of them, one after the other."""
        while len(parts) > 1:
            every = range(2 * lanes(parts[0].type))
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [self.shuffle(x, y, every) for x, y in pairs]
        return parts[0]

    def intrinsic_effect(self, name: str, operands: Sequence[Value]) -> None:
        """Call an LLVM intrinsic that has no result."""
        self.emit_effect(llvm.CallIntrinsicOp, operands, _intrinsic_properties(name, len(operands)))

    def immediate(self, number: int, type_: IntegerType = i8) -> Value:
        """A constant that an intrinsic demands as an immediate (`llvm.mlir.constant`)."""
        return self.emit_at_entry(llvm.ConstantOp, (), type_, {"value": IntegerAttr(number, type_)})

    # -- control

    def for_(self, lo: Operand, hi: Operand, step: Operand = 1, inits: Sequence[Value] = ()) -> For:
        """A loop over `range(lo, hi, step)`; `step` must be positive.

        It counts in the type of its bounds that are values: an index, or a signed integer.
        """
        given = [bound.type for bound in (lo, hi, step) if isinstance(bound, Value)]
        type_ = given[0] if given else index
        return For(self, [self.value(bound, type_) for bound in (lo, hi, step)], inits)

    def while_(
        self, inits: Sequence[Value], condition: Callable[[Sequence[Value]], Value]
    ) -> While:
        """A loop for as long as `condition` of the carried values gives a set bit."""
        return While(self, inits, condition)

    def if_(self, cond: Value) -> If:
        """A branch taken when the bit is set."""
        return If(self, cond)


def _intrinsic_properties(name: str, operands: int) -> dict[str, Attribute]:
    return {
        "intrin": StringAttr(name),
        "fastmathFlags": llvm.FastMathAttr(None),
        "op_bundle_sizes": DenseArrayBase.from_list(i32, []),
        "operandSegmentSizes": DenseArrayBase.from_list(i32, [operands, 0]),
    }
