"""Upstream MLIR operations that xDSL 0.74 lacks, or defines for scalars only.

Each class has the name, operands and properties of the upstream operation, so that its generic
form is text that MLIR parses. They are for building IR and for parsing it (`dialects()` gives the
`arith`, `vector` and `memref` dialects with these operations put in); nothing here adds meaning.

Reference: https://mlir.llvm.org/docs/Dialects/ of LLVM 22.
"""

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects import arith, memref, vector
from xdsl.dialects.builtin import (
    AnyFloatConstr,
    ArrayAttr,
    BoolAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    MemRefType,
    VectorType,
    i1,
    i32,
    i64,
)
from xdsl.ir import Attribute, Dialect, Operation, SSAValue
from xdsl.irdl import (
    AnyAttr,
    AttrConstraint,
    EqAttrConstraint,
    IRDLOperation,
    VarConstraint,
    base,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

INTEGER_LIKE: AttrConstraint = base(IntegerType) | VectorType.constr(base(IntegerType))
FLOAT_LIKE: AttrConstraint = AnyFloatConstr | VectorType.constr(AnyFloatConstr)


def _shape(type_: Attribute) -> tuple[int, ...]:
    return tuple(type_.get_shape()) if isa(type_, VectorType) else ()


def _width(type_: Attribute) -> int:
    element = type_.element_type if isa(type_, VectorType) else type_
    assert isinstance(element, IntegerType)
    return element.width.data


class _ElementwiseCast(IRDLOperation, ABC):
    """A cast of a scalar, or of every element of a vector."""

    assembly_format = "$input attr-dict `:` type($input) `to` type($result)"

    def __init__(self, value: SSAValue | Operation, target: Attribute):
        super().__init__(operands=[value], result_types=[target])

    def verify_(self) -> None:
        source, target = self.operands[0].type, self.results[0].type
        if _shape(source) != _shape(target):
            raise VerifyException(f"'{self.name}' cannot change the shape: {source} to {target}")
        self.verify_widths(source, target)

    def verify_widths(self, source: Attribute, target: Attribute) -> None:
        """Raise VerifyException where the element widths are not those of this cast."""


class _ExtendInteger(_ElementwiseCast, ABC):
    input = operand_def(INTEGER_LIKE)
    result = result_def(INTEGER_LIKE)
    traits = traits_def(Pure())

    def verify_widths(self, source: Attribute, target: Attribute) -> None:
        if _width(source) >= _width(target):
            raise VerifyException(f"'{self.name}' needs a wider result: {source} to {target}")


@irdl_op_definition
class ExtSIOp(_ExtendInteger):
    """Sign-extend integers."""

    name = "arith.extsi"


@irdl_op_definition
class ExtUIOp(_ExtendInteger):
    """Zero-extend integers."""

    name = "arith.extui"


@irdl_op_definition
class TruncIOp(_ElementwiseCast):
    """Keep the low bits of integers."""

    name = "arith.trunci"
    input = operand_def(INTEGER_LIKE)
    result = result_def(INTEGER_LIKE)
    traits = traits_def(Pure())

    def verify_widths(self, source: Attribute, target: Attribute) -> None:
        if _width(source) <= _width(target):
            raise VerifyException(f"'{self.name}' needs a narrower result: {source} to {target}")


@irdl_op_definition
class SIToFPOp(_ElementwiseCast):
    """Signed integers to floats."""

    name = "arith.sitofp"
    input = operand_def(INTEGER_LIKE)
    result = result_def(FLOAT_LIKE)
    traits = traits_def(Pure())


@irdl_op_definition
class UIToFPOp(_ElementwiseCast):
    """Unsigned integers to floats."""

    name = "arith.uitofp"
    input = operand_def(INTEGER_LIKE)
    result = result_def(FLOAT_LIKE)
    traits = traits_def(Pure())


@irdl_op_definition
class FPToSIOp(_ElementwiseCast):
    """Floats to signed integers, towards zero."""

    name = "arith.fptosi"
    input = operand_def(FLOAT_LIKE)
    result = result_def(INTEGER_LIKE)
    traits = traits_def(Pure())


BITS: AttrConstraint = EqAttrConstraint(i1) | VectorType.constr(i1)


class _Compare(IRDLOperation, ABC):
    """A comparison whose result has one bit per element."""

    predicate = prop_def(IntegerAttr)

    def verify_(self) -> None:
        operand, result = self.operands[0].type, self.results[0].type
        if self.operands[1].type != operand or _shape(operand) != _shape(result):
            raise VerifyException(
                f"'{self.name}' needs two operands of one type and one bit per element: "
                f"{operand}, {self.operands[1].type} to {result}"
            )


@irdl_op_definition
class CmpiOp(_Compare):
    """Compare integers; the predicate is upstream's number (0 eq, 1 ne, 2 slt .. 9 uge)."""

    name = "arith.cmpi"
    lhs = operand_def(INTEGER_LIKE | base(IndexType))
    rhs = operand_def(INTEGER_LIKE | base(IndexType))
    result = result_def(BITS)
    traits = traits_def(Pure())


@irdl_op_definition
class CmpfOp(_Compare):
    """Compare floats; the predicate is upstream's number (1 oeq, 2 ogt, .. 13 une)."""

    name = "arith.cmpf"
    fastmath = prop_def(arith.FastMathFlagsAttr)
    lhs = operand_def(FLOAT_LIKE)
    rhs = operand_def(FLOAT_LIKE)
    result = result_def(BITS)
    traits = traits_def(Pure())


@irdl_op_definition
class SelectOp(IRDLOperation):
    """Choose between two values by a bit, or element by element by a vector of bits."""

    T: ClassVar = VarConstraint("T", AnyAttr())

    name = "arith.select"
    cond = operand_def(BITS)
    lhs = operand_def(T)
    rhs = operand_def(T)
    result = result_def(T)
    traits = traits_def(Pure())

    def __init__(self, cond: SSAValue, lhs: SSAValue, rhs: SSAValue):
        super().__init__(operands=[cond, lhs, rhs], result_types=[lhs.type])

    def verify_(self) -> None:
        bits = self.operands[0].type
        if isa(bits, VectorType) and _shape(bits) != _shape(self.operands[1].type):
            raise VerifyException(
                f"'{self.name}' needs one bit per element: {bits} for {self.operands[1].type}"
            )


@irdl_op_definition
class ShapeCastOp(IRDLOperation):
    """The same elements in row-major order under another vector shape."""

    name = "vector.shape_cast"
    source = operand_def(VectorType)
    result = result_def(VectorType)
    traits = traits_def(Pure())
    assembly_format = "$source attr-dict `:` type($source) `to` type($result)"

    def __init__(self, source: SSAValue | Operation, target: VectorType):
        super().__init__(operands=[source], result_types=[target])


@irdl_op_definition
class ExtractStridedSliceOp(IRDLOperation):
    """A hyper-rectangular part of a vector."""

    name = "vector.extract_strided_slice"
    source = operand_def(VectorType)
    offsets = prop_def(ArrayAttr[IntegerAttr])
    sizes = prop_def(ArrayAttr[IntegerAttr])
    strides = prop_def(ArrayAttr[IntegerAttr])
    result = result_def(VectorType)
    traits = traits_def(Pure())

    def __init__(self, source: SSAValue, offset: int, size: int):
        """Elements `offset .. offset + size` of the 1-D vector `source`."""
        assert isa(source.type, VectorType)
        super().__init__(
            operands=[source],
            result_types=[VectorType(source.type.element_type, [size])],
            properties={"offsets": _ints(offset), "sizes": _ints(size), "strides": _ints(1)},
        )


@irdl_op_definition
class InsertStridedSliceOp(IRDLOperation):
    """A vector with a part of it replaced by a smaller vector."""

    name = "vector.insert_strided_slice"
    value = operand_def(VectorType)
    dest = operand_def(VectorType)
    offsets = prop_def(ArrayAttr[IntegerAttr])
    strides = prop_def(ArrayAttr[IntegerAttr])
    result = result_def(VectorType)
    traits = traits_def(Pure())

    def __init__(self, value: SSAValue, dest: SSAValue, offset: int):
        """The 1-D vector `dest` with `value` put in at `offset`."""
        super().__init__(
            operands=[value, dest],
            result_types=[dest.type],
            properties={"offsets": _ints(offset), "strides": _ints(1)},
        )


@irdl_op_definition
class InterleaveOp(IRDLOperation):
    """Elements of two vectors taken in turn: a0 b0 a1 b1 .."""

    name = "vector.interleave"
    lhs = operand_def(VectorType)
    rhs = operand_def(VectorType)
    result = result_def(VectorType)
    traits = traits_def(Pure())

    def __init__(self, lhs: SSAValue, rhs: SSAValue):
        assert isa(lhs.type, VectorType)
        size = 2 * lhs.type.get_shape()[0]
        super().__init__(
            operands=[lhs, rhs], result_types=[VectorType(lhs.type.element_type, [size])]
        )


@irdl_op_definition
class FromElementsOp(IRDLOperation):
    """A vector of the given scalars."""

    name = "vector.from_elements"
    elements = var_operand_def()
    result = result_def(VectorType)
    traits = traits_def(Pure())

    def __init__(self, elements: Sequence[SSAValue]):
        super().__init__(
            operands=[elements], result_types=[VectorType(elements[0].type, [len(elements)])]
        )


@irdl_op_definition
class GatherOp(IRDLOperation):
    """Load one element per lane from `base[index + lane index]` where the mask bit is set."""

    name = "vector.gather"
    base = operand_def(MemRefType)
    offsets = var_operand_def(IndexType)
    indices = operand_def(VectorType)
    mask = operand_def(VectorType)
    pass_thru = operand_def(VectorType)
    result = result_def(VectorType)


@irdl_op_definition
class PrefetchOp(IRDLOperation):
    """Ask for a cache line of a memref before it is needed."""

    name = "memref.prefetch"
    memref = operand_def(MemRefType)
    indices = var_operand_def(IndexType)
    isWrite = prop_def(BoolAttr)
    localityHint = prop_def(IntegerAttr)
    isDataCache = prop_def(BoolAttr)

    def __init__(self, ref: SSAValue, indices: Sequence[SSAValue], locality: int = 3):
        """`locality`: 0 (no reuse) .. 3 (keep in every cache)."""
        super().__init__(operands=[ref, indices], properties=prefetch_properties(locality))


def prefetch_properties(locality: int) -> dict[str, Attribute]:
    """Properties of a data prefetch for reading, with locality 0..3."""
    return {
        "isWrite": BoolAttr.from_bool(False),
        "localityHint": IntegerAttr(locality, i32),
        "isDataCache": BoolAttr.from_bool(True),
    }


def _ints(value: int) -> ArrayAttr[IntegerAttr]:
    return ArrayAttr([IntegerAttr(value, i64)])


_OURS: tuple[type[Operation], ...] = (
    ExtSIOp,
    ExtUIOp,
    TruncIOp,
    SIToFPOp,
    UIToFPOp,
    FPToSIOp,
    CmpiOp,
    CmpfOp,
    SelectOp,
    ShapeCastOp,
    ExtractStridedSliceOp,
    InsertStridedSliceOp,
    InterleaveOp,
    FromElementsOp,
    GatherOp,
    PrefetchOp,
)


def _with_ours(dialect: Dialect) -> Dialect:
    ours = {op.name: op for op in _OURS if op.name.split(".")[0] == dialect.name}
    kept = [op for op in dialect.operations if op.name not in ours]
    return Dialect(dialect.name, [*kept, *ours.values()], [*dialect.attributes])


def dialects() -> tuple[Dialect, ...]:
    """xDSL's `arith`, `vector` and `memref` with the operations above added or put in place."""
    return tuple(_with_ours(d) for d in (arith.Arith, vector.Vector, memref.MemRef))
