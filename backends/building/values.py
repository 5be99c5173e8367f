"""Values that read like numbers: operators on SSA values that append upstream operations.

`Emitter` holds the place where operations go and the constants; `Value` is an SSA value with
operators. Python numbers beside a `Value` become constants of its type (splat for a vector), and
arithmetic on two known integers is done at once, so that index expressions fold as they are built.
Integers have no sign of their own: `>>`, `//`, `%` and `<` are the unsigned forms for `index` and
the signed forms for `i8`..`i64`; `.shr` is always the logical shift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from xdsl.dialects import arith
from xdsl.dialects.builtin import (
    BFloat16Type,
    DenseIntOrFPElementsAttr,
    Float16Type,
    Float32Type,
    Float64Type,
    FloatAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    VectorType,
    f32,
    f64,
    i1,
    i8,
    i16,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from nybble.dialects import upstream

index = IndexType()
FLOATS = (Float32Type, Float16Type, BFloat16Type, Float64Type)
Number: TypeAlias = int | float
Operand: TypeAlias = "Value | int | float"

NO_FASTMATH: dict[str, Attribute] = {"fastmath": arith.FastMathFlagsAttr("none")}
_NO_OVERFLOW: dict[str, Attribute] = {"overflowFlags": arith.IntegerOverflowAttr("none")}
_NO_PROPERTIES: dict[str, Attribute] = {}

_INT_OPS: dict[str, tuple[type[Operation], dict[str, Attribute]]] = {
    "add": (arith.AddiOp, _NO_OVERFLOW),
    "sub": (arith.SubiOp, _NO_OVERFLOW),
    "mul": (arith.MuliOp, _NO_OVERFLOW),
    "and": (arith.AndIOp, _NO_PROPERTIES),
    "or": (arith.OrIOp, _NO_PROPERTIES),
    "xor": (arith.XOrIOp, _NO_PROPERTIES),
    "shl": (arith.ShLIOp, _NO_OVERFLOW),
    "shr": (arith.ShRUIOp, {}),
    "sar": (arith.ShRSIOp, {}),
    "udiv": (arith.DivUIOp, {}),
    "sdiv": (arith.DivSIOp, {}),
    "urem": (arith.RemUIOp, {}),
    "srem": (arith.RemSIOp, {}),
}
_FLOAT_OPS: dict[str, type[Operation]] = {
    "add": arith.AddfOp,
    "sub": arith.SubfOp,
    "mul": arith.MulfOp,
    "div": arith.DivfOp,
}
_CMPI = {"eq": 0, "ne": 1, "slt": 2, "sle": 3, "sgt": 4, "sge": 5, "ult": 6, "ule": 7, "ugt": 8}
_CMPI["uge"] = 9
_CMPF = {"eq": 1, "gt": 2, "ge": 3, "lt": 4, "le": 5, "ne": 13}


def vec(lanes: int, element: Attribute) -> VectorType:
    """The type of a 1-D vector."""
    return VectorType(element, [lanes])


def element_type(type_: Attribute) -> Attribute:
    """The element type of a vector, or the type itself."""
    return type_.element_type if isinstance(type_, VectorType) else type_


def lanes(type_: Attribute) -> int:
    """Number of elements of a 1-D vector type, 1 for a scalar."""
    return type_.get_shape()[0] if isinstance(type_, VectorType) else 1


def with_element(type_: Attribute, element: Attribute) -> Attribute:
    """The same shape with another element type."""
    return vec(lanes(type_), element) if isinstance(type_, VectorType) else element


def fold(kind: str, lhs: int, rhs: int) -> int | None:
    """The result of an index operation on known numbers; None if it is not one that folds."""
    match kind:
        case "add":
            return lhs + rhs
        case "sub":
            return lhs - rhs
        case "mul":
            return lhs * rhs
        case "udiv":
            return lhs // rhs
        case "urem":
            return lhs % rhs
        case _:
            return None


class Value:
    """An SSA value with operators. `known` is its number where that is a constant index."""

    __slots__ = ("emitter", "known", "ssa")

    def __init__(self, emitter: Emitter, ssa: SSAValue, known: int | None = None):
        self.emitter = emitter
        self.ssa = ssa
        self.known = known

    @property
    def type(self) -> Attribute:
        """The MLIR type."""
        return self.ssa.type

    @property
    def is_float(self) -> bool:
        """Whether this is a float or a vector of floats."""
        return isinstance(element_type(self.ssa.type), FLOATS)

    def _unsigned(self) -> bool:
        return isinstance(self.ssa.type, IndexType)

    def __add__(self, other: Operand) -> Value:
        return self.emitter.binary("add", self, other)

    def __radd__(self, other: Operand) -> Value:
        return self.emitter.binary("add", self, other)

    def __sub__(self, other: Operand) -> Value:
        return self.emitter.binary("sub", self, other)

    def __rsub__(self, other: Number) -> Value:
        return self.emitter.binary("sub", self.emitter.const(other, self.type), self)

    def __mul__(self, other: Operand) -> Value:
        return self.emitter.binary("mul", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return self.emitter.binary("mul", self, other)

    def __truediv__(self, other: Operand) -> Value:
        return self.emitter.binary("div", self, other)

    def __rtruediv__(self, other: Number) -> Value:
        return self.emitter.binary("div", self.emitter.const(other, self.type), self)

    def __floordiv__(self, other: Operand) -> Value:
        return self.emitter.binary("udiv" if self._unsigned() else "sdiv", self, other)

    def __mod__(self, other: Operand) -> Value:
        return self.emitter.binary("urem" if self._unsigned() else "srem", self, other)

    def __and__(self, other: Operand) -> Value:
        return self.emitter.binary("and", self, other)

    def __or__(self, other: Operand) -> Value:
        return self.emitter.binary("or", self, other)

    def __xor__(self, other: Operand) -> Value:
        return self.emitter.binary("xor", self, other)

    def __lshift__(self, other: Operand) -> Value:
        return self.emitter.binary("shl", self, other)

    def __rshift__(self, other: Operand) -> Value:
        return self.emitter.binary("shr" if self._unsigned() else "sar", self, other)

    def shr(self, other: Operand) -> Value:
        """Logical shift right."""
        return self.emitter.binary("shr", self, other)

    def __neg__(self) -> Value:
        if self.is_float:
            return self.emitter.emit(arith.NegfOp, (self,), self.type, NO_FASTMATH)
        return self.emitter.binary("sub", self.emitter.const(0, self.type), self)

    def __lt__(self, other: Operand) -> Value:
        return self.emitter.compare("lt", self, other)

    def __le__(self, other: Operand) -> Value:
        return self.emitter.compare("le", self, other)

    def __gt__(self, other: Operand) -> Value:
        return self.emitter.compare("gt", self, other)

    def __ge__(self, other: Operand) -> Value:
        return self.emitter.compare("ge", self, other)

    def eq(self, other: Operand) -> Value:
        """Bit (or vector of bits): whether the two are equal (ordered, for floats)."""
        return self.emitter.compare("eq", self, other)

    def ne(self, other: Operand) -> Value:
        """Bit (or vector of bits): whether the two differ (true for NaN)."""
        return self.emitter.compare("ne", self, other)


class Emitter:
    """Appends operations to the current block and keeps constants once, at the function's entry."""

    def __init__(self, argument_types: Sequence[Attribute]):
        self.entry = Block(arg_types=argument_types)
        self.block = self.entry
        self._prologue: list[Operation] = []
        self._constants: dict[tuple[object, ...], Value] = {}

    def emit(
        self,
        op: type[Operation],
        operands: Sequence[Value],
        result: Attribute,
        properties: Mapping[str, Attribute] = _NO_PROPERTIES,
    ) -> Value:
        """Append an operation of one result of type `result`."""
        made = op.create(
            operands=[v.ssa for v in operands], result_types=(result,), properties=properties
        )
        self.block.add_op(made)
        return Value(self, made.results[0])

    def emit_effect(
        self,
        op: type[Operation],
        operands: Sequence[Value],
        properties: Mapping[str, Attribute] = _NO_PROPERTIES,
        regions: Sequence[Region] = (),
    ) -> None:
        """Append an operation that has no result."""
        made = op.create(operands=[v.ssa for v in operands], properties=properties, regions=regions)
        self.block.add_op(made)

    def emit_at_entry(
        self,
        op: type[Operation],
        operands: Sequence[Value],
        result: Attribute,
        properties: Mapping[str, Attribute] = _NO_PROPERTIES,
    ) -> Value:
        """Like `emit`, before everything else: for constants and what depends on them alone."""
        made = op.create(
            operands=[v.ssa for v in operands], result_types=(result,), properties=properties
        )
        self._prologue.append(made)
        return Value(self, made.results[0])

    def close_entry(self) -> None:
        """Put the constants in front of the entry block; call once, when all is built."""
        if first := self.entry.first_op:
            self.entry.insert_ops_before(self._prologue, first)
        else:
            self.entry.add_ops(self._prologue)
        self._prologue = []

    def const(self, number: Number | Sequence[Number], type_: Attribute = index) -> Value:
        """A constant of a scalar type, a splat of a vector type, or (a sequence) a full vector."""
        key = (tuple(number) if isinstance(number, Sequence) else str(number), type_)
        found = self._constants.get(key)
        if found is None:
            attribute = _constant(number, type_)
            found = self.emit_at_entry(arith.ConstantOp, (), type_, {"value": attribute})
            if type_ == index and isinstance(number, int):
                found.known = number
            self._constants[key] = found
        return found

    def value(self, operand: Operand, type_: Attribute = index) -> Value:
        """`operand` as a value: a Python number becomes a constant of `type_`."""
        return operand if isinstance(operand, Value) else self.const(operand, type_)

    def binary(self, kind: str, lhs: Value, rhs: Operand) -> Value:
        """Append an arithmetic operation on two values of one type; folds known indices."""
        if lhs.is_float:
            operands = (lhs, self.value(rhs, lhs.type))
            return self.emit(_FLOAT_OPS[kind], operands, lhs.type, NO_FASTMATH)
        folded = self._folded(kind, lhs, rhs) if isinstance(lhs.type, IndexType) else None
        if folded is not None:
            return folded
        op, properties = _INT_OPS[kind]
        return self.emit(op, (lhs, self.value(rhs, lhs.type)), lhs.type, properties)

    def _folded(self, kind: str, lhs: Value, rhs: Operand) -> Value | None:
        right = rhs.known if isinstance(rhs, Value) else rhs
        if isinstance(right, int) and lhs.known is not None:
            number = fold(kind, lhs.known, right)
            return None if number is None else self.const(number)
        if (right == 0 and kind in ("add", "sub")) or (right == 1 and kind in ("mul", "udiv")):
            return lhs
        if lhs.known == 0 and kind == "add" and isinstance(rhs, Value):
            return rhs
        return self.const(0) if right == 0 and kind == "mul" else None

    def compare(self, kind: str, lhs: Value, rhs: Operand) -> Value:
        """Append a comparison (eq, ne, lt, le, gt, ge): a bit, or a vector of bits."""
        operands = (lhs, self.value(rhs, lhs.type))
        result = with_element(lhs.type, i1)
        if lhs.is_float:
            predicate: dict[str, Attribute] = {"predicate": IntegerAttr(_CMPF[kind], i64)}
            return self.emit(upstream.CmpfOp, operands, result, {**NO_FASTMATH, **predicate})
        if kind not in ("eq", "ne"):
            kind = ("u" if isinstance(lhs.type, IndexType) else "s") + kind
        return self.emit(
            upstream.CmpiOp, operands, result, {"predicate": IntegerAttr(_CMPI[kind], i64)}
        )

    def select(self, cond: Value, then: Value, otherwise: Operand) -> Value:
        """`then` where the bit (or the lane's bit) is set, else `otherwise`."""
        operands = (cond, then, self.value(otherwise, then.type))
        return self.emit(upstream.SelectOp, operands, then.type)


def _constant(number: Number | Sequence[Number], type_: Attribute) -> Attribute:
    if isinstance(type_, VectorType):
        many = [*number] if isinstance(number, Sequence) else [number]
        element = type_.element_type
        if isinstance(element, FLOATS):
            many = [float(n) for n in many]
        return DenseIntOrFPElementsAttr.from_list(type_, many)
    assert not isinstance(number, Sequence)
    if isinstance(type_, FLOATS):
        return FloatAttr(float(number), type_)
    assert isinstance(type_, IntegerType | IndexType)
    assert isinstance(number, int)
    return IntegerAttr(number, type_)


__all__ = [
    "NO_FASTMATH",
    "Emitter",
    "Number",
    "Operand",
    "Value",
    "element_type",
    "f32",
    "f64",
    "fold",
    "i1",
    "i8",
    "i16",
    "i32",
    "i64",
    "index",
    "lanes",
    "vec",
    "with_element",
]
