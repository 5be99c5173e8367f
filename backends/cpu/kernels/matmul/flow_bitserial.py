"""When the dataflow `bitserial` computes a product, and what it costs.

Bit planes of integer weights meet those of bipolar activations (`bitserial_gemv`,
`bitserial_gemm`); see `work` for what is asked.
"""

from nybble.backends.cpu.kernels.matmul.bitcount import bit_count
from nybble.backends.cpu.kernels.matmul.bitserial import BitserialSpec
from nybble.backends.cpu.kernels.matmul.cost import cycles as estimate
from nybble.backends.cpu.kernels.matmul.work import Work, refused
from nybble.backends.cpu.plane_weights import planes_of
from nybble.backends.cpu.tile_layout import LANES, TILE
from nybble.passes.dataflow_rewrites import BIPOLAR_MODES

QUANTIZE = (6.0, 2.0)
"""Instructions that quantize 16 activations, and those for each plane."""
RESCALE = 4.0
"""Instructions that bring one group's count of 16 rows to f32 and add it."""


def refusal(work: Work) -> str | None:
    """Why popcounts cannot compute `work`; None if they can."""
    return refused(lambda: spec(work))


def spec(work: Work) -> BitserialSpec:
    """The kernel of `work`; raises what the kernel's specification raises."""
    return BitserialSpec(
        weight=planes_of(work.description, work.cols),
        rows=(work.rows,),
        cols=work.cols,
        bits=BIPOLAR_MODES[work.activations],
        tokens=work.tokens,
        isa=work.isa,
    )


def setup(work: Work) -> float:
    """Instructions that quantize the activation into planes."""
    once, each = QUANTIZE
    planes = BIPOLAR_MODES[work.activations]
    return work.tokens * work.cols / LANES * (once + each * planes)


def cycles(work: Work) -> float:
    """Estimated cycles on one thread, those of `setup` included."""
    asked = spec(work)
    (layout,) = asked.layouts
    form = bit_count(work.isa)
    groups = layout.tiles * layout.groups * (TILE // LANES)
    weights, planes = layout.bits, asked.bits
    vectors = groups * layout.words * weights
    pairs = vectors * planes * work.tokens
    split = vectors if work.tokens > 1 else pairs
    products = pairs * (2 + form.counting) + split * form.splitting
    sums = (weights + planes - 1) * (form.totalling + 2) + RESCALE + 2 * layout.has_zero
    total = products + groups * work.tokens * sums + setup(work)
    return estimate(work.isa, total, layout.size)
