"""When the dataflows `lut` and `lut_dot` compute a product, and what it costs.

Tables of an activation are looked up with the bit planes of the weight (`lut`, `lookup`); see
`work` for what is asked. Entries are exact unless the mode lets them be rounded.
"""

from nybble.backends.cpu.kernels.matmul.cost import cycles as estimate
from nybble.backends.cpu.kernels.matmul.flow_int_dot import QUANTIZE
from nybble.backends.cpu.kernels.matmul.lut_spec import LutSpec
from nybble.backends.cpu.kernels.matmul.work import Work, refused
from nybble.backends.cpu.lut_packing import MOST_BITS, Order
from nybble.backends.cpu.lut_weights import lut_codes
from nybble.backends.cpu.tile_layout import LANES, SUBTILES
from nybble.dialects.lowbit.formats.affine import affine
from nybble.dialects.mpgemm.lut import can_look_up
from nybble.dialects.mpgemm.tables import EXACT
from nybble.dialects.numpy_ref.lookup import WIDTH
from nybble.passes.dataflow_rewrites import ENTRY_MODES, TABLE_GROUPS, table_group

BUILD = 24.0
"""Instructions that build a table of four columns and split it into digits."""
RESCALE = 10.0
"""Instructions that bring one group's sums of 16 rows to f32 and add them."""
PER_VECTOR: dict[tuple[Order, bool], float] = {
    ("lut1", True): 11.3,
    ("lut1", False): 9.0,
    ("lut4", True): 11.0,
    ("lut4", False): 7.0,
}
"""(order, whether entries are exact) -> instructions for 64 bytes of indices of one plane.

Sums and masks count as half: they start on more ports than shuffles, shifts and products. Zen 3
measured, microseconds of look-ups and of pairs of products in groups of 128: 1 bit 130 and 203,
2 bits 253 and 279 at 4096 x 4096; 10.5 and 12.8, 15.0 and 13.9 at 576 x 1536.
"""


def refusal(work: Work, order: Order) -> str | None:
    """Why looking up cannot compute `work`; None if it can."""
    element = work.description.element
    if affine(element) is None or element.bits > MOST_BITS:
        return (
            f"weights of '{work.description.spec}' are no integers of 1 to {MOST_BITS} bits on a "
            "line (accepted: w1 to w4, bipolar, ternary, Q4_0, Q4_1, Q2_K)"
        )
    if not can_look_up(work.description):
        return f"weights of '{work.description.spec}' are sparse, corrected or grouped across rows"
    group = work.description.group_size(work.cols)
    if table_group(group) not in TABLE_GROUPS:
        return (
            f"groups of {group} columns, and tables are built for multiples of {TABLE_GROUPS[-1]}"
        )
    return refused(lambda: spec(work, order))


def spec(work: Work, order: Order) -> LutSpec:
    """The kernel of `work`; raises what the kernel's specification raises."""
    codes = lut_codes(work.description, work.cols)
    return LutSpec(
        weight=codes,
        rows=(work.rows,),
        cols=work.cols,
        tokens=work.tokens,
        activation_group=table_group(codes.group),
        order=order,
        exact=ENTRY_MODES[work.activations] == EXACT,
        symmetric=True,
        isa=work.isa,
    )


def setup(work: Work) -> float:
    """Instructions that quantize the activation and build its tables."""
    return work.tokens * (work.cols / WIDTH * BUILD + work.cols / LANES * QUANTIZE)


def cycles(work: Work, order: Order) -> float:
    """Estimated cycles on one thread, those of `setup` included."""
    asked = spec(work, order)
    (layout,) = asked.layouts
    vectors = layout.tiles * layout.groups * layout.code_bytes / 64
    per_token = vectors * PER_VECTOR[order, asked.exact]
    per_token += layout.tiles * asked.tables.groups * SUBTILES * RESCALE
    return estimate(work.isa, per_token * work.tokens + setup(work), layout.size)
