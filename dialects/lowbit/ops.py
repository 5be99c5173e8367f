"""Operations that move between plain tensors and low-bit formats."""

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import Float32Type, TensorType
from xdsl.irdl import IRDLOperation, irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.shapes import check_equal, check_rank


@irdl_op_definition
class QuantizeOp(IRDLOperation):
    """Round an f32 matrix to a low-bit format, group by group along its columns."""

    name = "lowbit.quantize"
    input = operand_def(TensorType.constr(Float32Type()))
    result = result_def(LowBitTensorType)
    traits = traits_def(Pure())
    assembly_format = "$input attr-dict `:` type($input) `->` type($result)"

    def verify_(self) -> None:
        rows, cols = check_rank("input", self.input, 2)
        result = self.result.type
        check_equal("rows of the result", result.rows, rows, "rows of the input")
        check_equal("columns of the result", result.cols, cols, "columns of the input")

    def reference(self, values: npt.NDArray[np.float32]) -> tuple[Weight]:
        """values: f32 [rows, cols]."""
        return (self.result.type.number_format.quantize(values),)


@irdl_op_definition
class DequantizeOp(IRDLOperation):
    """Decode a low-bit matrix to f32."""

    name = "lowbit.dequantize"
    input = operand_def(LowBitTensorType)
    result = result_def(TensorType.constr(Float32Type()))
    traits = traits_def(Pure())
    assembly_format = "$input attr-dict `:` type($input) `->` type($result)"

    def verify_(self) -> None:
        rows, cols = check_rank("result", self.result, 2)
        source = self.input.type
        assert isinstance(source, LowBitTensorType)
        check_equal("rows of the result", rows, source.rows, "rows of the input")
        check_equal("columns of the result", cols, source.cols, "columns of the input")

    def reference(self, weight: Weight) -> tuple[npt.NDArray[np.float32]]:
        """weight: canonical form of [rows, cols]."""
        return (weight.dequantize(),)


@irdl_op_definition
class PackOp(IRDLOperation):
    """Reorder a weight's bytes from its storage order into a compute layout, offline."""

    name = "lowbit.pack"
    input = operand_def(LowBitTensorType)
    result = result_def(LowBitTensorType)
    traits = traits_def(Pure())
    assembly_format = "$input attr-dict `:` type($input) `->` type($result)"

    def verify_(self) -> None:
        source, result = self.input.type, self.result.type
        assert isinstance(source, LowBitTensorType)
        if (source.shape, source.format) != (result.shape, result.format):
            raise VerifyException(
                f"packing changes only the layout: expected {source.format.data} of the same "
                f"shape, got {result.format.data}"
            )

    def reference(self, weight: Weight) -> tuple[Weight]:
        """The value is unchanged: a layout is a permutation of the same codes."""
        return (weight,)
