"""When the dataflow `dequantize` computes a product, and what it costs.

Weights are decoded and multiplied in floating point (`gemv_f32`, `gemm_f32`, `gemm_amx`); see
`work` for what is asked. It keeps activations as exact as they come, so it serves every mode.
"""

from nybble.backends.cpu.kernels.matmul.cost import cycles as estimate
from nybble.backends.cpu.kernels.matmul.lower import takes_tiles
from nybble.backends.cpu.kernels.matmul.spec import Dense, MatmulSpec
from nybble.backends.cpu.kernels.matmul.weights import SUBTILES
from nybble.backends.cpu.kernels.matmul.work import Work, refused
from nybble.backends.cpu.weights import weight_kind

DECODE = 5.0
"""Instructions that decode 16 rows of a column: shift, mask, convert, scale, and a share."""
DECODE_FLOAT = 1.5
"""The same where weights are floats already."""
MULTIPLY = 1.25
"""Instructions per token for 16 rows of a column: a fused multiply-add and shared loads."""
MULTIPLY_TILES = 1 / 16
"""The same on tiles of 16 x 16 x 32 products in 16 cycles (Intel SDM, TDPBF16PS; assumed)."""
TILE_TOKENS = 16


def refusal(work: Work) -> str | None:
    """Why decoding cannot compute `work`; None if it can."""
    return refused(lambda: spec(work))


def spec(work: Work) -> MatmulSpec:
    """The kernel of `work`; raises what the kernel's specification raises."""
    return MatmulSpec(
        weight=weight_kind(work.description),
        rows=(work.rows,),
        cols=work.cols,
        tokens=work.tokens,
        activations="bf16" if work.activations == "bf16" else "f32",
        isa=work.isa,
    )


def cycles(work: Work) -> float:
    """Estimated cycles on one thread."""
    asked = spec(work)
    (layout,) = asked.layouts
    columns = layout.tiles * SUBTILES * work.cols
    decode = columns * (DECODE_FLOAT if isinstance(asked.weight, Dense) else DECODE)
    if takes_tiles(asked):
        tokens = -(-work.tokens // TILE_TOKENS) * TILE_TOKENS
        return estimate(work.isa, decode + columns * tokens * MULTIPLY_TILES, layout.size)
    return estimate(work.isa, decode + columns * work.tokens * MULTIPLY, layout.size)
