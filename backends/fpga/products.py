"""The design of a product that an operation of a kernel is."""

from xdsl.ir import Operation

from nybble.backends.fpga.dataflows import checked_design
from nybble.backends.fpga.design import Design
from nybble.backends.fpga.elements import BIPOLAR_MODES, MODE
from nybble.dialects.errors import NybbleError
from nybble.dialects.locations import location_of
from nybble.dialects.mpgemm.arrays import ArrayProductOp, XnorArrayMatmulOp
from nybble.passes.fixed_products import fixed_product


def design_of(op: Operation, device: str) -> Design:
    """The design of an operation of a kernel; raises NybbleError where there is none."""
    mode = MODE
    if isinstance(op, XnorArrayMatmulOp):
        mode = next(mode for mode, n in BIPOLAR_MODES.items() if n == op.planes.value.data)
    product = fixed_product(op, ArrayProductOp, "an FPGA", mode, may_have_bias=True)
    assert isinstance(op, ArrayProductOp)
    try:
        return checked_design(op.DATAFLOW, product, device, op.bias is not None)
    except NybbleError as error:
        error.location = error.location or location_of(op)
        raise
