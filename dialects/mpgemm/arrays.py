"""Products by an array of processing elements, of activations of 8 bits with a scale per token."""

from typing import ClassVar

from xdsl.irdl import irdl_op_definition

from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.mpgemm.ops import Array, FloatProductOp, product
from nybble.dialects.numpy_ref.quantize import dequantize_rows, quantize_rows


class ArrayProductOp(FloatProductOp):
    """The activation is rounded as the product begins: 8 bits, one scale for each token."""

    WEIGHT_LAYOUT: ClassVar[str] = "array"

    def reference(self, activation: Array, weight: Weight, bias: Array | None = None):
        """See `FloatProductOp`, of the rounded activation."""
        found = quantize_rows(activation, activation.shape[1])
        return product(dequantize_rows(found.q, found.s), weight.dequantize(), bias)


@irdl_op_definition
class LutArrayMatmulOp(ArrayProductOp):
    """Bits or trits of weights look up sums of activations, in tables that stay in the array."""

    name = "mpgemm.lut_array_matmul"
    DATAFLOW: ClassVar[str] = "lut_array"


@irdl_op_definition
class SparseChainMatmulOp(ArrayProductOp):
    """Of each block of columns those that are kept are multiplied, in chains of DSP blocks."""

    name = "mpgemm.sparse_chain_matmul"
    DATAFLOW: ClassVar[str] = "sparse_chain"


@irdl_op_definition
class MultiplyArrayMatmulOp(ArrayProductOp):
    """Weights are decoded to integers and multiplied, one narrow product for each."""

    name = "mpgemm.multiply_array_matmul"
    DATAFLOW: ClassVar[str] = "multiply_array"
