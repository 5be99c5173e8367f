"""Matrix products of low-bit weights with activations, as intent and as dataflow."""

import abc
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import Float32Type, StringAttr, TensorType
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.lowbit.formats.affine import affine
from nybble.dialects.lowbit.formats.element import Bipolar
from nybble.dialects.lowbit.formats.numeric import round_to
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.shapes import check_equal, check_rank

Array = npt.NDArray[np.float32]
F32Tensor = TensorType.constr(Float32Type())


class ProductOp(IRDLOperation, abc.ABC):
    """`result[n, r] = sum_k activation[n, k] * weight[r, k] (+ bias[r])`.

    DATAFLOW: the name of the way to compute it, empty for the intent. WEIGHT_LAYOUT: the order of
    bytes in which that reads the weight. because: why this way was chosen, for people.
    """

    DATAFLOW: ClassVar[str] = ""
    WEIGHT_LAYOUT: ClassVar[str] = "tile64"
    weight = operand_def(LowBitTensorType)
    bias = opt_operand_def(F32Tensor)
    result = result_def(F32Tensor)
    because = opt_prop_def(StringAttr)
    traits = traits_def(Pure())
    assembly_format = (
        "$activation `,` $weight (`bias` $bias^ `:` type($bias))? (`because` $because^)? "
        "attr-dict `:` type($activation) `,` type($weight) `->` type($result)"
    )

    def __init__(
        self, activation: SSAValue, weight: SSAValue, bias: SSAValue | None, result: Attribute
    ):
        super().__init__(operands=[activation, weight, bias], result_types=[result])

    @abc.abstractmethod
    def activation_shape(self) -> tuple[int, int]:
        """Tokens and contracted columns of the activation."""

    def verify_(self) -> None:
        tokens, columns = self.activation_shape()
        rows, features = check_rank("result", self.result, 2)
        weight = self.weight.type
        assert isinstance(weight, LowBitTensorType)
        check_equal("columns of the weight", weight.cols, columns, "columns of the activation")
        check_equal("columns of the result", features, weight.rows, "rows of the weight")
        check_equal("rows of the result", rows, tokens, "rows of the activation")
        if self.bias is not None:
            (length,) = check_rank("bias", self.bias, 1)
            check_equal("length of the bias", length, weight.rows, "rows of the weight")


PRECISIONS = ("f32", "bf16")


def product(activation: Array, weight: Array, bias: Array | None) -> tuple[Array]:
    """f32 [n, r] of [n, k] and [r, k], summed in f64."""
    exact = activation.astype(np.float64) @ weight.astype(np.float64).T
    if bias is not None:
        exact = exact + bias
    return (exact.astype(np.float32),)


class FloatProductOp(ProductOp, abc.ABC):
    """A product whose activation is f32."""

    activation = operand_def(F32Tensor)

    def activation_shape(self) -> tuple[int, int]:
        """See `ProductOp`."""
        tokens, columns = check_rank("activation", self.activation, 2)
        return tokens, columns

    def reference(self, activation: Array, weight: Weight, bias: Array | None = None):
        """activation: f32 [n, k]; weight: [r, k]; bias: f32 [r]. f32 [n, r], summed in f64."""
        return product(activation, weight.dequantize(), bias)


@irdl_op_definition
class MatmulOp(FloatProductOp):
    """The product as the model states it; how it is computed is a scheduler's choice."""

    name = "mpgemm.matmul"


@irdl_op_definition
class DequantMatmulOp(FloatProductOp):
    """The product by decoding weights on the fly and multiplying in floating point.

    precision "bf16" allows both factors to be rounded to bf16; sums stay in f32.
    """

    name = "mpgemm.dequant_matmul"
    DATAFLOW: ClassVar[str] = "dequantize"
    precision = opt_prop_def(StringAttr)
    assembly_format = (
        "$activation `,` $weight (`bias` $bias^ `:` type($bias))? (`precision` $precision^)? "
        "(`because` $because^)? attr-dict `:` type($activation) `,` type($weight) `->` "
        "type($result)"
    )

    def verify_(self) -> None:
        super().verify_()
        if self.precision is not None and self.precision.data not in PRECISIONS:
            raise VerifyException(
                f'unknown precision "{self.precision.data}"; accepted: {", ".join(PRECISIONS)}'
            )

    @property
    def rounds(self) -> bool:
        """Whether factors may be rounded to bf16."""
        return self.precision is not None and self.precision.data == "bf16"

    def reference(self, activation: Array, weight: Weight, bias: Array | None = None):
        """As for `mpgemm.matmul`, on factors rounded to bf16 where that is allowed."""
        if not self.rounds:
            return product(activation, weight.dequantize(), bias)
        decoded = round_to("bf16", weight.dequantize())
        return product(round_to("bf16", activation), decoded, bias)


class QuantizedProductOp(ProductOp, abc.ABC):
    """A product whose activation is quantized in groups that lie within the weight's."""

    activation = operand_def(LowBitTensorType)

    def activation_shape(self) -> tuple[int, int]:
        """See `ProductOp`."""
        activation = self.activation_type
        return activation.rows, activation.cols

    @property
    def activation_type(self) -> LowBitTensorType:
        """The type of the activation."""
        activation = self.activation.type
        assert isinstance(activation, LowBitTensorType)
        return activation

    @property
    def weight_type(self) -> LowBitTensorType:
        """The type of the weight."""
        weight = self.weight.type
        assert isinstance(weight, LowBitTensorType)
        return weight

    def verify_(self) -> None:
        super().verify_()
        weight, activation = self.weight_type, self.activation_type
        weights = weight.number_format.group_size(weight.cols)
        activations = activation.number_format.group_size(activation.cols)
        self.verify_groups(weights, activations)

    def verify_groups(self, weights: int, activations: int) -> None:
        """Raise VerifyException unless groups of so many columns go together."""
        if weights % activations:
            raise VerifyException(
                f"the activation's group must divide the weight's ({weights}), got {activations}"
            )

    def reference(self, activation: Weight, weight: Weight, bias: Array | None = None):
        """Both operands in canonical form; sums in f64."""
        return product(activation.dequantize(), weight.dequantize(), bias)


@irdl_op_definition
class IntMatmulOp(QuantizedProductOp):
    """The product by integer dot products within groups, rescaled and summed over groups."""

    name = "mpgemm.int_matmul"
    DATAFLOW: ClassVar[str] = "int_dot"

    def verify_(self) -> None:
        weight = self.weight_type
        if weight.number_format.is_plain:
            raise VerifyException(
                f'format "{weight.format.data}" has no integer codes; use mpgemm.dequant_matmul'
            )
        super().verify_()


class BitserialProductOp(QuantizedProductOp, abc.ABC):
    """A product by counting bits that pairs of planes have in common, or in which they differ.

    For bipolar activations and integer weights; see bipolar-INT, arXiv 2409.17870.
    """

    def verify_(self) -> None:
        weight, activation = self.weight_type, self.activation_type
        if affine(weight.number_format.element) is None:
            raise VerifyException(
                f'codes of format "{weight.format.data}" are no integers on a line; '
                "use mpgemm.dequant_matmul"
            )
        if not isinstance(activation.number_format.element, Bipolar):
            raise VerifyException(
                f'the activation must be bipolar, got "{activation.format.data}"; accepted: abNgG'
            )
        super().verify_()
        group = weight.number_format.group_size(weight.cols)
        if activation.number_format.group_size(activation.cols) != group:
            raise VerifyException(f"the activation's group must equal the weight's ({group})")


@irdl_op_definition
class BitserialMatmulOp(BitserialProductOp):
    """The product by counting, for every pair of bit planes, in how many columns they differ."""

    name = "mpgemm.bitserial_matmul"
    DATAFLOW: ClassVar[str] = "bitserial"
    WEIGHT_LAYOUT: ClassVar[str] = "planes64"
