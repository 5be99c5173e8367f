"""What backends that compile one product at a time see of it."""

from xdsl.dialects.builtin import DYNAMIC_INDEX
from xdsl.ir import Operation

from nybble.dialects.errors import NybbleError
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import ProductOp
from nybble.passes.targets import Product


def fixed_product(
    op: Operation,
    kind: type[ProductOp] | tuple[type[ProductOp], ...],
    device: str,
    activations: str,
    isa: str = "",
    *,
    may_have_bias: bool = False,
) -> Product:
    """The product that an operation of a kernel is.

    kind: the operations that the device computes; device: it, as a message names it. may_have_bias:
    whether the device adds a bias. Raises NybbleError for any other operation, a bias that it does
    not add, or a number of tokens that is not known.
    """
    accepted = "a product of a number of tokens that is known"
    accepted += "" if may_have_bias else ", without a bias"
    if not isinstance(op, kind) or (op.bias is not None and not may_have_bias):
        what = f"'{op.name}' with a bias" if isinstance(op, kind) else f"'{op.name}'"
        raise NybbleError(
            f"{what} has no kernel on {device}", location=location_of(op), accepted=accepted
        )
    weight = op.weight.type
    assert isinstance(weight, LowBitTensorType)
    tokens, _ = op.activation_shape()
    if tokens == DYNAMIC_INDEX:
        raise NybbleError(
            "a product of a number of tokens that is not known",
            location=location_of(op),
            accepted=accepted,
        )
    return Product(weight.number_format, weight.rows, weight.cols, tokens, activations, isa)
