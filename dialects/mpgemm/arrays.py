"""Products by an array of processing elements, of activations of 8 bits with a scale per token."""

from typing import ClassVar

from xdsl.dialects.builtin import I64, IntegerAttr
from xdsl.irdl import irdl_op_definition, prop_def
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.mpgemm.ops import Array, FloatProductOp, product
from nybble.dialects.numpy_ref.quantize import bipolar_values, dequantize_rows, quantize_rows

MOST_PLANES = 4
"""Bits of the widest bipolar activations that arrays take."""


class ArrayProductOp(FloatProductOp):
    """The activation is rounded as the product begins: 8 bits, one scale for each token."""

    WEIGHT_LAYOUT: ClassVar[str] = "array"

    def rounded(self, activation: Array) -> Array:
        """The activation f32 [n, k] as the array takes it."""
        found = quantize_rows(activation, activation.shape[1])
        return dequantize_rows(found.q, found.s)

    def reference(self, activation: Array, weight: Weight, bias: Array | None = None):
        """See `FloatProductOp`, of the rounded activation."""
        return product(self.rounded(activation), weight.dequantize(), bias)


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


@irdl_op_definition
class SerialArrayMatmulOp(ArrayProductOp):
    """Weights are signed powers of two, one of which an activation is shifted by in a cycle."""

    name = "mpgemm.serial_array_matmul"
    DATAFLOW: ClassVar[str] = "serial_array"


@irdl_op_definition
class XnorArrayMatmulOp(ArrayProductOp):
    """Bits of bipolar weights and activations are compared and counted, plane by plane.

    planes: of the bipolar integers that activations are rounded to. bipolar-INT, arXiv 2409.17870.
    """

    name = "mpgemm.xnor_array_matmul"
    DATAFLOW: ClassVar[str] = "xnor_array"
    planes = prop_def(IntegerAttr[I64])
    assembly_format = (
        "$activation `,` $weight (`bias` $bias^ `:` type($bias))? `planes` $planes (`because` "
        "$because^)? attr-dict `:` type($activation) `,` type($weight) `->` type($result)"
    )

    def verify_(self) -> None:
        super().verify_()
        if not 1 <= self.planes.value.data <= MOST_PLANES:
            raise VerifyException(
                f"planes must be 1 to {MOST_PLANES}, got {self.planes.value.data}"
            )

    def rounded(self, activation: Array) -> Array:
        """See `ArrayProductOp`."""
        return bipolar_values(activation, self.planes.value.data)
