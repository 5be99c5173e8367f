"""Products by lookup tables: the tables of an activation, and bit planes that index them."""

import abc
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from xdsl.ir import SSAValue
from xdsl.irdl import (
    BaseAttr,
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.lowbit.formats import Format, Weight
from nybble.dialects.lowbit.formats.affine import Affine, affine
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import F32Tensor, ProductOp
from nybble.dialects.mpgemm.tables import EXACT, FLOATS, HALF, ROUNDED, TableType
from nybble.dialects.numpy_ref.lookup import Tables, build_tables, code_sums, float_tables
from nybble.dialects.shapes import check_equal, check_rank

F32 = npt.NDArray[np.float32]
MOST_BITS = 4


@irdl_op_definition
class LutPrecomputeOp(IRDLOperation):
    """The sums that every four columns of an activation can add to a row, as tables."""

    name = "mpgemm.lut_precompute"
    activation = operand_def(F32Tensor | BaseAttr(LowBitTensorType))
    tables = result_def(TableType)
    traits = traits_def(Pure())
    assembly_format = "$activation attr-dict `:` type($activation) `->` type($tables)"

    def __init__(self, activation: SSAValue, tables: TableType):
        super().__init__(operands=[activation], result_types=[tables])

    def verify_(self) -> None:
        source, tables = self.activation.type, self.tables.type
        if isinstance(source, LowBitTensorType):
            rows, cols, format = source.rows, source.cols, source.format.data
        else:
            (rows, cols), format = check_rank("activation", self.activation, 2), FLOATS
        check_equal("rows of the tables", tables.rows, rows, "rows of the activation")
        check_equal("columns of the tables", tables.cols, cols, "columns of the activation")
        if tables.format.data != format:
            raise VerifyException(
                f'the tables must be of format "{format}" (the activation), got '
                f'"{tables.format.data}"'
            )

    def reference(self, activation: Weight | F32) -> tuple[Tables]:
        """activation: f32, or integers of 8 bits with a scale per group."""
        type_ = self.tables.type
        if not isinstance(activation, Weight):
            return (float_tables(activation, HALF, symmetric=type_.symmetric),)
        integers = activation.require_codes().astype(np.int32) - activation.zero_point
        tables = build_tables(
            integers, activation.scale, symmetric=type_.symmetric, exact=type_.exact
        )
        return (tables,)


def can_look_up(description: Format) -> bool:
    """Whether products look up weights of a format: few bits on a line, dense, groups in rows."""
    dense = description.sparsity is None and not description.corrections
    along = dense and description.grouping.axis == "cols"
    element = description.element
    return along and affine(element) is not None and element.bits <= MOST_BITS


class LookupProductOp(ProductOp, abc.ABC):
    """The product by one look-up per row, four columns and bit plane of the weight.

    ENTRIES: types of the entries that it looks up.
    """

    ENTRIES: ClassVar[tuple[str, ...]] = (EXACT, ROUNDED)
    activation = operand_def(TableType)

    def activation_shape(self) -> tuple[int, int]:
        """See `ProductOp`."""
        tables = self.activation.type
        assert isinstance(tables, TableType)
        return tables.rows, tables.cols

    def verify_(self) -> None:
        super().verify_()
        tables = self.activation.type
        assert isinstance(tables, TableType)
        if tables.entries.data not in self.ENTRIES:
            raise VerifyException(
                f'{self.name} looks up no entries of "{tables.entries.data}"; accepted: '
                f"{', '.join(self.ENTRIES)}"
            )
        description = self.weight_type.number_format
        if not can_look_up(description):
            raise VerifyException(
                f'format "{self.weight_type.format.data}" cannot be looked up; accepted: integer '
                f"codes of 1 to {MOST_BITS} bits whose values lie on a line, dense and grouped by "
                "columns"
            )
        weights = description.group_size(tables.cols)
        activations = tables.number_format.group_size(tables.cols)
        if weights % activations:
            raise VerifyException(
                f"the tables' group must divide the weight's ({weights}), got {activations}"
            )

    @property
    def weight_type(self) -> LowBitTensorType:
        """The weight's type."""
        type_ = self.weight.type
        assert isinstance(type_, LowBitTensorType)
        return type_

    @property
    def line(self) -> Affine | None:
        """What the weight's codes mean, if it is a line."""
        return affine(self.weight_type.number_format.element)

    def reference(self, tables: Tables, weight: Weight, bias: F32 | None = None) -> tuple[F32]:
        """f32 [n, r], looked up; sums in f64."""
        line, codes = self.line, weight.require_codes()
        assert line is not None, "verified"
        bits = self.weight_type.number_format.element.bits
        sums = tables.sums[:, None, :].astype(np.float64)
        dots = line.step * code_sums(tables, codes, bits) + line.first * sums
        per_scale = tables.scale.shape[1] // weight.scale.shape[1]
        result = np.einsum(
            "nrg,rg,ng->nr", dots, np.repeat(weight.scale, per_scale, 1), tables.scale, dtype="f8"
        )
        if weight.zero is not None:
            zero = np.repeat(weight.zero, per_scale, 1).astype(np.float64)
            result += (tables.scale.astype(np.float64) * tables.sums) @ zero.T
        if bias is not None:
            result += bias
        return (result.astype(np.float32),)


@irdl_op_definition
class LutMatmulOp(LookupProductOp):
    """Many rows are looked up in one table: shuffles of bytes in 16 entries."""

    name = "mpgemm.lut_matmul"
    DATAFLOW: ClassVar[str] = "lut"
    WEIGHT_LAYOUT: ClassVar[str] = "lut1"


@irdl_op_definition
class LutDotMatmulOp(LookupProductOp):
    """Four bytes of a row are looked up in four tables, and dot products of bytes add them up."""

    name = "mpgemm.lut_dot_matmul"
    DATAFLOW: ClassVar[str] = "lut_dot"
    WEIGHT_LAYOUT: ClassVar[str] = "lut4"
