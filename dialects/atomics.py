"""Upstream MLIR's atomic operations of the `llvm` dialect, which xDSL 0.74 lacks.

As in `upstream`: names, operands and properties are upstream's, so that the generic form is text
that MLIR parses. Reference: https://mlir.llvm.org/docs/Dialects/LLVM/ of LLVM 22.
"""

from enum import IntEnum

from xdsl.dialects.builtin import I64, IntegerAttr, i1, i64
from xdsl.dialects.llvm import LLVMPointerType, LLVMStructType
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AnyAttr,
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
)


class Ordering(IntEnum):
    """How an access is ordered with others, by upstream's numbers."""

    NONE = 0
    MONOTONIC = 2
    ACQUIRE = 4
    RELEASE = 5
    ACQUIRE_RELEASE = 6


class Change(IntEnum):
    """What an atomic update does, by upstream's numbers."""

    EXCHANGE = 0
    ADD = 1
    OR = 5
    XOR = 6
    MAX = 7
    MIN = 8
    FADD = 11


def _number(value: IntEnum) -> IntegerAttr[I64]:
    return IntegerAttr(int(value), i64)


@irdl_op_definition
class AtomicRMWOp(IRDLOperation):
    """Update a word of memory at once; the result is what was there."""

    name = "llvm.atomicrmw"
    ptr = operand_def(LLVMPointerType)
    val = operand_def(AnyAttr())
    res = result_def(AnyAttr())
    bin_op = prop_def(IntegerAttr[I64])
    ordering = prop_def(IntegerAttr[I64])

    def __init__(self, change: Change, ptr: SSAValue, value: SSAValue, ordering: Ordering):
        super().__init__(
            operands=[ptr, value],
            result_types=[value.type],
            properties={"bin_op": _number(change), "ordering": _number(ordering)},
        )


@irdl_op_definition
class CmpXchgOp(IRDLOperation):
    """Put `val` where `cmp` is found; the result is what was there, and whether it was `cmp`."""

    name = "llvm.cmpxchg"
    ptr = operand_def(LLVMPointerType)
    cmp = operand_def(AnyAttr())
    val = operand_def(AnyAttr())
    res = result_def(LLVMStructType)
    success_ordering = prop_def(IntegerAttr[I64])
    failure_ordering = prop_def(IntegerAttr[I64])

    def __init__(self, ptr: SSAValue, expected: SSAValue, value: SSAValue, ordering: Ordering):
        types: list[Attribute] = [value.type, i1]
        super().__init__(
            operands=[ptr, expected, value],
            result_types=[LLVMStructType.from_type_list(types)],
            properties={
                "success_ordering": _number(ordering),
                "failure_ordering": _number(Ordering.MONOTONIC),
            },
        )
