"""When the dataflow `int_dot` computes a product, and what it costs.

Integer codes are multiplied with activations quantized to one or two 8-bit digits, group by group
(`gemv`, `gemm_dot`); see `work` for what is asked.
"""

from nybble.backends.cpu.kernels.matmul.adding import instructions
from nybble.backends.cpu.kernels.matmul.codes import Codes
from nybble.backends.cpu.kernels.matmul.codes_dot import in_place, in_place_dot, level_dot
from nybble.backends.cpu.kernels.matmul.cost import cycles as estimate
from nybble.backends.cpu.kernels.matmul.spec import MatmulError, MatmulSpec
from nybble.backends.cpu.kernels.matmul.work import Work, refused
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TileLayout
from nybble.backends.cpu.weights import added_of, weight_kind
from nybble.dialects.numpy_ref.quantize import GROUPS, activation_group

DIGITS = {"i8": 1, "i8-lut": 1, "i16": 2}
"""Mode of activations -> 8-bit digits."""
QUANTIZE = 8.0
"""Instructions that quantize 16 activations."""
LOOKUP = 1.0
"""Instructions that turn 64 codes of a table into levels."""
EXPAND = 7.0
"""Instructions that put the kept codes of four columns of 16 rows in place."""
RESCALE = 4.0
"""Instructions that bring one group's sums of 16 rows to f32 and add them."""


def refusal(work: Work) -> str | None:
    """Why integer dot products cannot compute `work`; None if they can."""
    return refused(lambda: checked(work)) or refused(lambda: spec(work))


def checked(work: Work) -> None:
    """Raise MatmulError unless a weight is integers under scales whose groups activations share."""
    description = work.description
    kind = weight_kind(description, work.cols)
    if not isinstance(kind, Codes) or kind.integers is None:
        raise MatmulError(
            f"weights of '{description.spec}' are no integer codes, or table of such",
            accepted="wN, bipN, Q4_0 to Q6_K, IQ1 to IQ4, ternary, e2m1 and e2m3",
        )
    if activation_group(kind.group) is None:
        raise MatmulError(f"groups of {kind.group} columns", accepted=f"a multiple of {GROUPS[0]}")


def spec(work: Work) -> MatmulSpec:
    """The kernel of `work`; raises what the kernel's specification raises."""
    group = work.description.group_size(work.cols)
    return MatmulSpec(
        weight=weight_kind(work.description, work.cols),
        added=added_of(work.description, work.cols),
        rows=(work.rows,),
        cols=work.cols,
        tokens=work.tokens,
        activations="a8",
        activation_group=activation_group(group) or group,
        digits=DIGITS[work.activations],
        isa=work.isa,
    )


def setup(work: Work) -> float:
    """Instructions that quantize the activation."""
    return work.tokens * work.cols / LANES * QUANTIZE


def cycles(work: Work) -> float:
    """Estimated cycles on one thread, those of `setup` included."""
    asked = spec(work)
    (layout,) = asked.layouts
    assert isinstance(layout, TileLayout)
    groups = layout.tiles * layout.groups * SUBTILES
    columns = groups * layout.group / 4
    rescale = groups * work.tokens * (RESCALE + 2 * layout.has_zero)
    if work.tokens == 1 and in_place(asked, layout.widths):
        dot = in_place_dot(asked, layout.width)
        products = columns * (1 + dot.operations) / dot.planes
    else:
        dot = level_dot(asked)
        pieces = 2.0 * len(layout.widths) + LOOKUP * bool(asked.integers.levels)
        pieces += EXPAND * bool(layout.keep)
        products = columns * (pieces + work.tokens * dot.operations)
    total = products + rescale + setup(work) + instructions(asked)
    return estimate(work.isa, total, sum(asked.part_sizes))
