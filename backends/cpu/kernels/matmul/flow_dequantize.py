"""When the dataflow `dequantize` computes a product, and what it costs.

Weights are decoded and multiplied in floating point (`gemv_f32`, `gemm_f32`, `gemm_amx`); see
`work` for what is asked. It keeps activations as exact as they come, so it serves every mode.
"""

from nybble.backends.cpu.kernels.matmul.adding import instructions
from nybble.backends.cpu.kernels.matmul.codes import Dense, Kind, SmallFloat, Split
from nybble.backends.cpu.kernels.matmul.cost import cycles as estimate
from nybble.backends.cpu.kernels.matmul.lower import takes_tiles
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.kernels.matmul.work import Work, refused
from nybble.backends.cpu.tile_layout import SUBTILES
from nybble.backends.cpu.weights import added_of, weight_kind

DECODE_FLOAT = 1.5
"""Instructions that load and widen 16 rows of a column of floats."""
DECODE_SPLIT = 3.5
"""The same for bf16 whose high bytes are looked up."""
DECODE_TABLE = 2.5
"""The same for codes that a permutation looks up: shift, permute, and a share of cutting out."""
DECODE_INTEGER = 4.0
"""The same for wider integers: shift, mask, float, zero point."""
DECODE_SMALL_FLOAT = 10.0
"""The same for a small float whose fields are put together."""
EXPAND = 1.75
"""What putting kept codes in place adds."""
PIECE = 1.0
"""What every further piece of a code adds."""
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
        weight=weight_kind(work.description, work.cols),
        added=added_of(work.description, work.cols),
        rows=(work.rows,),
        cols=work.cols,
        tokens=work.tokens,
        activations="bf16" if work.activations == "bf16" else "f32",
        isa=work.isa,
    )


def setup(work: Work) -> float:
    """Instructions that prepare the activation: none, it is read as it comes."""
    return 0.0


def cycles(work: Work) -> float:
    """Estimated cycles on one thread."""
    asked = spec(work)
    (layout,) = asked.layouts
    columns = layout.tiles * SUBTILES * work.cols
    decode = columns * decoding(asked.weight, len(getattr(layout, "widths", (1,))))
    decode += instructions(asked)
    read = sum(asked.part_sizes)
    if takes_tiles(asked):
        tokens = -(-work.tokens // TILE_TOKENS) * TILE_TOKENS
        return estimate(work.isa, decode + columns * tokens * MULTIPLY_TILES, read)
    return estimate(work.isa, decode + columns * work.tokens * MULTIPLY, read)


def decoding(weight: Kind, pieces: int) -> float:
    """Instructions that decode 16 rows of a column."""
    if isinstance(weight, Dense):
        return DECODE_FLOAT
    if isinstance(weight, Split):
        return DECODE_SPLIT
    if isinstance(weight.table, SmallFloat):
        return DECODE_SMALL_FLOAT
    expand = EXPAND if weight.keep else 0.0
    return (DECODE_TABLE if weight.bits <= 4 else DECODE_INTEGER) + PIECE * (pieces - 1) + expand
