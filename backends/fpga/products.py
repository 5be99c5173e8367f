"""The design of a product that an operation of a kernel is."""

from xdsl.ir import Operation

from nybble.backends.fpga.dataflows import MODE, checked_design
from nybble.backends.fpga.design import Design
from nybble.dialects.errors import NybbleError
from nybble.dialects.locations import location_of
from nybble.dialects.mpgemm.arrays import ArrayProductOp
from nybble.passes.fixed_products import fixed_product


def design_of(op: Operation, device: str) -> Design:
    """The design of an operation of a kernel; raises NybbleError where there is none."""
    product = fixed_product(op, ArrayProductOp, "an FPGA", MODE)
    assert isinstance(op, ArrayProductOp)
    try:
        return checked_design(op.DATAFLOW, product, device)
    except NybbleError as error:
        error.location = error.location or location_of(op)
        raise
