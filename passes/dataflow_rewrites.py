"""From a product to the operations of a dataflow: a table, one row each.

A rewrite takes the place of a `mpgemm.matmul` and returns the product that it put there. What
products of one activation can share (its quantization) it keeps in `Shared`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from xdsl.dialects.builtin import IntegerAttr, StringAttr
from xdsl.ir import Block, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from nybble.dialects.lowbit.ops import QuantizeOp
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.arrays import (
    ArrayProductOp,
    LutArrayMatmulOp,
    MultiplyArrayMatmulOp,
    SerialArrayMatmulOp,
    SparseChainMatmulOp,
    XnorArrayMatmulOp,
)
from nybble.dialects.mpgemm.lut import LookupProductOp, LutDotMatmulOp, LutMatmulOp, LutPrecomputeOp
from nybble.dialects.mpgemm.ops import (
    BitserialMatmulOp,
    BitserialProductOp,
    DequantMatmulOp,
    IntMatmulOp,
    MatmulOp,
    ProductOp,
)
from nybble.dialects.mpgemm.stream import (
    StreamBitserialMatmulOp,
    StreamFloatProductOp,
    StreamIntMatmulOp,
    StreamLookupMatmulOp,
    StreamMatmulOp,
    StreamWarpgroupMatmulOp,
)
from nybble.dialects.mpgemm.tables import EXACT, FLOATS, HALF, ROUNDED, SYMMETRIC, TableType
from nybble.dialects.numpy_ref.quantize import activation_group

DIGIT_MODES = {"i8": "a8", "i8-lut": "a8", "i16": "a16"}
"""Activation mode -> the format of its integers, to which `g` and a group size are added."""

BIPOLAR_MODES = {f"b{bits}": bits for bits in range(1, 9)}
"""Activation mode -> the bits of its bipolar integers."""


@dataclass(frozen=True)
class Shared:
    """What was made of activations so far: (block, activation, format) -> its quantization."""

    quantized: dict[tuple[Block | None, SSAValue, str], SSAValue] = field(
        default_factory=dict[tuple[Block | None, SSAValue, str], SSAValue]
    )

    def quantize(self, matmul: MatmulOp, spec: str) -> SSAValue:
        """The activation of a product in a format; made before the product the first time."""
        key = (matmul.parent, matmul.activation, spec)
        if key not in self.quantized:
            quantized = LowBitTensorType.get(matmul.activation_shape(), spec)
            quantize = QuantizeOp.build(operands=[matmul.activation], result_types=[quantized])
            Rewriter.insert_op(quantize, InsertPoint.before(matmul))
            self.quantized[key] = quantize.result
        return self.quantized[key]


TABLE_GROUPS = (256, 128, 64, 32)
"""Columns that share the scale of an activation where tables are built of it."""
ENTRY_MODES = {"i8": EXACT, "i8-lut": ROUNDED}
"""Activation mode -> type of a table's entries."""

Rewrite = Callable[[MatmulOp, str, Shared], ProductOp]
"""(product, activation mode, what is shared) -> the product in its place."""


def to_int_matmul(matmul: MatmulOp, mode: str, shared: Shared) -> ProductOp:
    """rewrite: `matmul(x, w) -> int_matmul(quantize(x), w)`, one quantize per (x, group).

    The group is the largest that activations can have and that divides the weight's.
    """
    weight = matmul.weight.type
    assert isinstance(weight, LowBitTensorType)
    group = weight.number_format.group_size(weight.cols)
    group = activation_group(group) or group
    quantized = shared.quantize(matmul, f"{DIGIT_MODES[mode]}g{group}")
    product = IntMatmulOp(quantized, matmul.weight, matmul.bias, matmul.result.type)
    Rewriter.replace_op(matmul, product)
    return product


def to_dequant_matmul(matmul: MatmulOp, mode: str, shared: Shared) -> ProductOp:
    """rewrite: `matmul(x, w) -> dequant_matmul(x, w) precision p`"""
    product = DequantMatmulOp(matmul.activation, matmul.weight, matmul.bias, matmul.result.type)
    product.precision = StringAttr("bf16") if mode == "bf16" else None
    Rewriter.replace_op(matmul, product)
    return product


def to_bitserial_matmul(kind: type[BitserialProductOp]) -> Rewrite:
    """rewrite: `matmul(x, w) -> kind(quantize(x), w)`, one quantize per (x, group)"""

    def rewrite(matmul: MatmulOp, mode: str, shared: Shared) -> ProductOp:
        weight = matmul.weight.type
        assert isinstance(weight, LowBitTensorType)
        group = weight.number_format.group_size(weight.cols)
        quantized = shared.quantize(matmul, f"ab{BIPOLAR_MODES[mode]}g{group}")
        product = kind(quantized, matmul.weight, matmul.bias, matmul.result.type)
        Rewriter.replace_op(matmul, product)
        return product

    return rewrite


def to_lut_matmul(kind: type[LookupProductOp]) -> Rewrite:
    """rewrite: `matmul(x, w) -> lut_matmul(lut_precompute(quantize(x)), w)`, one quantize per x

    The tables of each product are its own; `precompute-tables` finds those that are the same.
    """

    def rewrite(matmul: MatmulOp, mode: str, shared: Shared) -> ProductOp:
        weight = matmul.weight.type
        assert isinstance(weight, LowBitTensorType)
        spec = f"a8g{table_group(weight.number_format.group_size(weight.cols))}"
        quantized = shared.quantize(matmul, spec)
        tables = TableType.get(matmul.activation_shape(), spec, ENTRY_MODES[mode])
        precompute = LutPrecomputeOp(quantized, tables)
        Rewriter.insert_op(precompute, InsertPoint.before(matmul))
        product = kind(precompute.tables, matmul.weight, matmul.bias, matmul.result.type)
        Rewriter.replace_op(matmul, product)
        return product

    return rewrite


def to_stream_matmul(kind: type[StreamFloatProductOp]) -> Rewrite:
    """rewrite: `matmul(x, w) -> kind(x, w) precision mode`"""

    def rewrite(matmul: MatmulOp, mode: str, shared: Shared) -> ProductOp:
        product = kind(matmul.activation, matmul.weight, matmul.bias, matmul.result.type)
        product.precision = StringAttr(mode)
        Rewriter.replace_op(matmul, product)
        return product

    return rewrite


def to_stream_int_matmul(matmul: MatmulOp, mode: str, shared: Shared) -> ProductOp:
    """rewrite: `matmul(x, w) -> stream_int_matmul(quantize(x), w)`, one quantize per x"""
    quantized = shared.quantize(matmul, DIGIT_MODES[mode])
    product = StreamIntMatmulOp(quantized, matmul.weight, matmul.bias, matmul.result.type)
    Rewriter.replace_op(matmul, product)
    return product


def to_stream_lookup_matmul(matmul: MatmulOp, mode: str, shared: Shared) -> ProductOp:
    """rewrite: `matmul(x, w) -> stream_lookup_matmul(lut_precompute(x), w)`

    As in `to_lut_matmul`, `precompute-tables` finds the tables that are the same.
    """
    tables = TableType.get(matmul.activation_shape(), FLOATS, HALF, SYMMETRIC)
    precompute = LutPrecomputeOp(matmul.activation, tables)
    Rewriter.insert_op(precompute, InsertPoint.before(matmul))
    product = StreamLookupMatmulOp(
        precompute.tables, matmul.weight, matmul.bias, matmul.result.type
    )
    Rewriter.replace_op(matmul, product)
    return product


def to_array_matmul(kind: type[ArrayProductOp]) -> Rewrite:
    """rewrite: `matmul(x, w) -> kind(x, w)`, which rounds its activation itself"""

    def rewrite(matmul: MatmulOp, mode: str, shared: Shared) -> ProductOp:
        product = kind(matmul.activation, matmul.weight, matmul.bias, matmul.result.type)
        Rewriter.replace_op(matmul, product)
        return product

    return rewrite


def to_xnor_matmul(matmul: MatmulOp, mode: str, shared: Shared) -> ProductOp:
    """rewrite: `matmul(x, w) -> xnor_array_matmul(x, w) planes n`, of mode "bN-token" """
    product = XnorArrayMatmulOp.build(
        operands=[matmul.activation, matmul.weight, matmul.bias],
        result_types=[matmul.result.type],
        properties={"planes": IntegerAttr(BIPOLAR_MODES[mode.removesuffix("-token")], 64)},
    )
    Rewriter.replace_op(matmul, product)
    return product


def table_group(group: int) -> int:
    """The largest of TABLE_GROUPS that divides a weight's group; `group` itself if none does."""
    return next((size for size in TABLE_GROUPS if group % size == 0), group)


REWRITES: dict[str, Rewrite] = {
    "int_dot": to_int_matmul,
    "dequantize": to_dequant_matmul,
    "bitserial": to_bitserial_matmul(BitserialMatmulOp),
    "lut": to_lut_matmul(LutMatmulOp),
    "lut_dot": to_lut_matmul(LutDotMatmulOp),
    "stream": to_stream_matmul(StreamMatmulOp),
    "stream_warpgroup": to_stream_matmul(StreamWarpgroupMatmulOp),
    "stream_bitserial": to_bitserial_matmul(StreamBitserialMatmulOp),
    "stream_int": to_stream_int_matmul,
    "stream_lookup": to_stream_lookup_matmul,
    "lut_array": to_array_matmul(LutArrayMatmulOp),
    "multiply_array": to_array_matmul(MultiplyArrayMatmulOp),
    "sparse_chain": to_array_matmul(SparseChainMatmulOp),
    "serial_array": to_array_matmul(SerialArrayMatmulOp),
    "xnor_array": to_xnor_matmul,
}
