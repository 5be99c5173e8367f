"""Products of streamed weights with activations rounded to 16-bit floats, for GPUs."""

from typing import ClassVar

from xdsl.dialects.builtin import StringAttr
from xdsl.irdl import irdl_op_definition, prop_def
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.lowbit.formats.numeric import round_to
from nybble.dialects.mpgemm.ops import Array, FloatProductOp

PRECISIONS = ("f16", "bf16")


@irdl_op_definition
class StreamMatmulOp(FloatProductOp):
    """The product of activations rounded to `precision`, by tensor cores, with sums in f32.

    Weights are decoded on the fly, and may be rounded to `precision` as well.
    """

    name = "mpgemm.stream_matmul"
    DATAFLOW: ClassVar[str] = "stream"
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
