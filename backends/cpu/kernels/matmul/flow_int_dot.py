"""When the dataflow `int_dot` computes a product, and what it costs.

Integer codes are multiplied with activations quantized to one or two 8-bit digits, group by group
(`gemv`, `gemm_dot`); see `work` for what is asked.
"""

from nybble.backends.cpu.kernels.matmul.cost import cycles as estimate
from nybble.backends.cpu.kernels.matmul.intdot import int_dot
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import SUBTILES
from nybble.backends.cpu.kernels.matmul.work import Work, refused
from nybble.backends.cpu.kernels.quantize import GROUPS
from nybble.backends.cpu.packing import LANES, TileLayout
from nybble.backends.cpu.weights import weight_kind

DIGITS = {"i8": 1, "i8-lut": 1, "i16": 2}
"""Mode of activations -> 8-bit digits."""
QUANTIZE = 8.0
"""Instructions that quantize 16 activations."""
RESCALE = 4.0
"""Instructions that bring one group's sums of 16 rows to f32 and add them."""


def refusal(work: Work) -> str | None:
    """Why integer dot products cannot compute `work`; None if they can."""
    element = work.description.element
    if not element.has_codes or element.table is not None:
        return (
            f"weights of '{work.description.spec}' are no integer codes less a zero point "
            "(accepted: wN, Q4_0 to Q6_K, ternary)"
        )
    group = work.description.group_size(work.cols)
    if group not in GROUPS:
        return (
            f"groups of {group} columns, and activations are quantized in groups of "
            + ", ".join(map(str, GROUPS))
        )
    return refused(lambda: spec(work))


def spec(work: Work) -> MatmulSpec:
    """The kernel of `work`; raises what the kernel's specification raises."""
    return MatmulSpec(
        weight=weight_kind(work.description),
        rows=(work.rows,),
        cols=work.cols,
        tokens=work.tokens,
        activations="a8",
        activation_group=work.description.group,
        digits=DIGITS[work.activations],
        isa=work.isa,
    )


def cycles(work: Work) -> float:
    """Estimated cycles on one thread, the quantization of the activation included."""
    asked = spec(work)
    (layout,) = asked.layouts
    assert isinstance(layout, TileLayout)
    groups = layout.tiles * layout.groups * SUBTILES
    vectors = groups * layout.vectors
    rescale = groups * work.tokens * (RESCALE + 2 * layout.has_zero)
    quantize = work.tokens * work.cols / LANES * QUANTIZE
    if work.tokens == 1:
        dot = int_dot(work.isa, layout.width, asked.digits)
        products = vectors * (1 + dot.operations)
    else:
        dot = int_dot(work.isa, 8, asked.digits)
        unpack = vectors * (1 + 3 * layout.planes)
        products = unpack + vectors * layout.planes * work.tokens * dot.operations
    return estimate(work.isa, products + rescale + quantize, layout.size)
