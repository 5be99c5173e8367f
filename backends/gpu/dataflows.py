"""The dataflows of GPUs with tensor cores, and the questions that passes ask of them.

One row: weights are streamed and decoded in registers, activations rounded to f16 or bf16. Its
refusal is what making the kernel's own specification raises, so that the two cannot disagree.
"""

from dataclasses import dataclass

from nybble.backends.gpu.arch import ARCHS, find_arch
from nybble.backends.gpu.kernels.matmul.spec import FlatSpec
from nybble.backends.gpu.products import product_spec
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.mpgemm.stream import StreamMatmulOp
from nybble.passes.targets import Product, Verdict

LOWEST = next(iter(ARCHS))
STREAMED = 0.85
"""The share of a board's bandwidth that reading alone reaches (assumed)."""
BEGIN = 6000.0
"""Cycles from a kernel's launch to its end that do no work: the first records, the last sums
(assumed)."""


@dataclass(frozen=True)
class CudaTarget:
    """GPUs, as passes ask for them; see `passes.targets.Target`."""

    name: str = "cuda"

    @property
    def modes(self) -> tuple[str, ...]:
        """See `Target`."""
        return ("f16", "bf16")

    def verdicts(self, product: Product) -> tuple[Verdict, ...]:
        """See `Target`: cycles are those of the whole board."""
        arch = find_arch(product.isa or LOWEST)
        name, layout = StreamMatmulOp.DATAFLOW, StreamMatmulOp.WEIGHT_LAYOUT
        try:
            spec = spec_of(product, arch.name)
        except NybbleError as error:
            accepted = f" (accepted: {error.accepted})" if error.accepted else ""
            return (Verdict(name, layout, refusal=error.message + accepted),)
        return (Verdict(name, layout, cycles=cycles(spec)),)

    def sketch(self, product: Product, dataflow: str) -> None:
        """See `Target`: nothing was measured here."""

    def choices(self, kernel: KernelOp, isa: str, threads: int) -> None:
        """See `Target`: schedules of GPU kernels have nothing to choose yet."""
        return


def spec_of(product: Product, arch: str) -> FlatSpec:
    """The kernel of a product; NybbleError with the reason if there is none."""
    for mode in ("f16", "bf16"):
        if mode == product.activations:
            spec = product.description.spec
            return product_spec(spec, product.rows, product.cols, product.tokens, arch, mode)
    raise NybbleError(f"activations {product.activations}", accepted="f16, bf16")


def cycles(spec: FlatSpec) -> float:
    """Estimated cycles: the slower of reading weights and multiplying, and what begins and ends."""
    board, layout = spec.arch.board, spec.layout
    bytes_per_cycle = STREAMED * board.bandwidth * 1e3 / board.clock
    reading = spec.passes * layout.bytes / bytes_per_cycle
    tokens = spec.passes * spec.pass_tokens
    multiplying = layout.tiles * layout.tile_rows * layout.cols * tokens
    return BEGIN + max(reading, multiplying / (spec.arch.products * board.sms))


CUDA = CudaTarget()
