"""Products of streamed weights with activations rounded to 16-bit floats or integers, for GPUs."""

import abc
from typing import ClassVar

from xdsl.dialects.builtin import StringAttr
from xdsl.irdl import irdl_op_definition, prop_def
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.lowbit.formats.element import Uniform
from nybble.dialects.lowbit.formats.numeric import round_to
from nybble.dialects.mpgemm.lut import LookupProductOp
from nybble.dialects.mpgemm.ops import (
    Array,
    BitserialProductOp,
    FloatProductOp,
    QuantizedProductOp,
)
from nybble.dialects.mpgemm.tables import HALF, TableType

PRECISIONS = ("f16", "bf16")


class StreamFloatProductOp(FloatProductOp, abc.ABC):
    """The product of activations rounded to `precision`, by tensor cores, with sums in f32.

    Weights are decoded on the fly, and may be rounded to `precision` as well.
    """

    WEIGHT_LAYOUT: ClassVar[str] = "stream"
    precision = prop_def(StringAttr)
    assembly_format = (
        "$activation `,` $weight (`bias` $bias^ `:` type($bias))? `precision` $precision "
        "(`because` $because^)? attr-dict `:` type($activation) `,` type($weight) `->` "
        "type($result)"
    )

    def verify_(self) -> None:
        super().verify_()
        if self.precision.data not in PRECISIONS:
            raise VerifyException(
                f'unknown precision "{self.precision.data}"; accepted: {", ".join(PRECISIONS)}'
            )

    def reference(self, activation: Array, weight: Weight, bias: Array | None = None):
        """As for `mpgemm.matmul`, on activations rounded to the precision."""
        rounded = round_to(self.precision.data, activation)
        return super().reference(rounded, weight, bias)


@irdl_op_definition
class StreamMatmulOp(StreamFloatProductOp):
    """Every warp multiplies a tile of rows of its own: for few tokens."""

    name = "mpgemm.stream_matmul"
    DATAFLOW: ClassVar[str] = "stream"


@irdl_op_definition
class StreamWarpgroupMatmulOp(StreamFloatProductOp):
    """Four warps multiply side by side, with activations in shared memory: for many tokens."""

    name = "mpgemm.stream_warpgroup_matmul"
    DATAFLOW: ClassVar[str] = "stream_warpgroup"


@irdl_op_definition
class StreamIntMatmulOp(QuantizedProductOp):
    """The product of activations in 8-bit integers with a scale for each token, by tensor cores.

    Products of a group of the weight are exact; sums over groups are f32.
    """

    name = "mpgemm.stream_int_matmul"
    DATAFLOW: ClassVar[str] = "stream_int"
    WEIGHT_LAYOUT: ClassVar[str] = "stream"

    def verify_(self) -> None:
        element = self.activation_type.number_format.element
        if element != Uniform(8, 128, narrow=True):
            found = self.activation_type.format.data
            raise VerifyException(
                f'the activation must be 8-bit integers, got "{found}"; accepted: a8'
            )
        super().verify_()

    def verify_groups(self, weights: int, activations: int) -> None:
        """See `QuantizedProductOp`: the scale of a token leaves groups of weights free."""
        if activations != self.activation_type.cols:
            raise VerifyException(
                f"the activation must have one scale for each token, got groups of {activations}"
            )


@irdl_op_definition
class StreamBitserialMatmulOp(BitserialProductOp):
    """The product of bit planes by tensor cores, which count the bits that pairs have in common."""

    name = "mpgemm.stream_bitserial_matmul"
    DATAFLOW: ClassVar[str] = "stream_bitserial"
    WEIGHT_LAYOUT: ClassVar[str] = "stream_planes"


@irdl_op_definition
class StreamLookupMatmulOp(LookupProductOp):
    """The product by tensor cores that look up tables of f16 (LUT Tensor Core, arXiv 2408.06003).

    Sums are f32. No hardware has such cores: the instruction is `lmma`, see `backends.gpu.lookup`.
    """

    name = "mpgemm.stream_lookup_matmul"
    DATAFLOW: ClassVar[str] = "stream_lookup"
    WEIGHT_LAYOUT: ClassVar[str] = "stream_lookup"
    ENTRIES: ClassVar[tuple[str, ...]] = (HALF,)

    def verify_(self) -> None:
        super().verify_()
        tables = self.activation.type
        assert isinstance(tables, TableType)
        if not tables.symmetric:
            raise VerifyException("the tables must be symmetric")
