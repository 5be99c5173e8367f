"""The dataflows of GPUs with tensor cores, and the questions that passes ask of them.

Weights are always streamed; rows differ in what activations are rounded to, and weights decoded to
in registers. A refusal is what making the kernel's own specification raises, so that the two cannot
disagree.
"""

from dataclasses import dataclass

from xdsl.ir import Operation

from nybble.backends.gpu.arch import ARCHS, IMAGINED, Arch, find_arch
from nybble.backends.gpu.kernels.matmul.lookup import LookupSpec, TablesSpec, lookup_spec
from nybble.backends.gpu.kernels.matmul.spec import PLAIN, Epilogue, StreamSpec
from nybble.backends.gpu.products import Activations, product_spec
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.lowbit.formats import Format
from nybble.dialects.mpgemm.ops import ProductOp
from nybble.dialects.mpgemm.stream import (
    StreamBitserialMatmulOp,
    StreamIntMatmulOp,
    StreamLookupMatmulOp,
    StreamMatmulOp,
    StreamWarpgroupMatmulOp,
)
from nybble.passes.targets import Product, Verdict

LOWEST = next(iter(ARCHS))
STREAMED = 0.85
"""The share of a board's bandwidth that reading alone reaches (assumed)."""
BEGIN = 6000.0
"""Cycles from a kernel's launch to its end that do no work: the first records, the last sums
(assumed)."""
LOADED = 128
"""Bytes that a multiprocessor loads in a cycle, of whatever memory."""
ProductSpec = StreamSpec | LookupSpec


@dataclass(frozen=True)
class Dataflow:
    """A way to multiply. op: its operation. modes: those of activations that it serves.

    warpgroups: see `compile_product`.
    """

    op: type[ProductOp]
    modes: tuple[Activations, ...]
    warpgroups: bool = False

    def spec(
        self,
        product: Product,
        arch: str,
        epilogue: Epilogue = PLAIN,
        output: str | None = None,
    ) -> ProductSpec:
        """The kernel of a product, with results of a type, see `compile_product`; NybbleError with
        the reason if there is none.
        """
        if self.op is StreamLookupMatmulOp:
            return looked_up_spec(product, arch, output)
        for mode in MODES:
            if mode == product.activations:
                shape = (product.description.spec, product.rows, product.cols, product.tokens)
                return product_spec(
                    *shape, arch, mode, output, epilogue=epilogue, warpgroups=self.warpgroups
                )
        raise NybbleError(f"activations {product.activations}", accepted=", ".join(MODES))

    def verdict(self, product: Product, arch: str) -> Verdict:
        """What it says of a product: cycles are those of the whole board."""
        name, layout = self.op.DATAFLOW, self.op.WEIGHT_LAYOUT
        if product.activations not in self.modes:
            serves = ", ".join(self.modes)
            reason = f"activations {product.activations}, it keeps {serves}"
            return Verdict(name, layout, refusal=reason)
        try:
            spec = self.spec(product, arch)
        except NybbleError as error:
            accepted = f" (accepted: {error.accepted})" if error.accepted else ""
            return Verdict(name, layout, refusal=error.message + accepted)
        if isinstance(spec, LookupSpec):
            setup = table_cycles(spec, find_arch(arch))
            found = setup + lookup_cycles(spec, find_arch(arch))
            return Verdict(name, layout, cycles=found, setup=setup)
        return Verdict(name, layout, cycles=cycles(spec))


def looked_up_spec(product: Product, arch: str, output: str | None) -> LookupSpec:
    """The kernel of a product by `lmma`, as `Dataflow.spec`."""
    if arch not in IMAGINED:
        raise NybbleError(f"products by lmma on {arch}", accepted=", ".join(IMAGINED))
    name, shape = product.description.spec, (product.rows, product.cols)
    return lookup_spec(name, *shape, product.tokens, output or "f32")


ROWS = (
    Dataflow(StreamMatmulOp, ("f16", "bf16")),
    Dataflow(StreamWarpgroupMatmulOp, ("f16", "bf16"), warpgroups=True),
    Dataflow(StreamIntMatmulOp, ("i8",)),
    Dataflow(StreamBitserialMatmulOp, ("b1", "b2", "b3", "b4")),
    Dataflow(StreamLookupMatmulOp, ("f16",)),
)
MODES: tuple[Activations, ...] = tuple(dict.fromkeys(mode for row in ROWS for mode in row.modes))
COVERED_TOKENS = (1, 128)
"""Few and many."""


def covering(description: Format, arch: str, shape: tuple[int, int]) -> list[str]:
    """The dataflows that multiply weights of a format and shape, with some kind of activations and
    few or many tokens.
    """
    sizes = [(tokens, mode) for mode in MODES for tokens in COVERED_TOKENS]
    products = [Product(description, *shape, *one, arch) for one in sizes]
    found = [one for product in products for one in CUDA.verdicts(product)]
    return list(dict.fromkeys(one.dataflow for one in found if one.refusal is None))


@dataclass(frozen=True)
class CudaTarget:
    """GPUs, as passes ask for them; see `passes.targets.Target`."""

    name: str = "cuda"

    @property
    def modes(self) -> tuple[str, ...]:
        """See `Target`."""
        return MODES

    def verdicts(self, product: Product) -> tuple[Verdict, ...]:
        """See `Target`."""
        arch = find_arch(product.isa or LOWEST)
        return tuple(row.verdict(product, arch.name) for row in ROWS)

    def sketch(self, product: Product, dataflow: str) -> None:
        """See `Target`: nothing was measured here."""

    def choices(self, kernel: KernelOp, isa: str, threads: int) -> None:
        """See `Target`: schedules of GPU kernels have nothing to choose yet."""
        return


def dataflow_of(op: Operation) -> Dataflow:
    """The dataflow of an operation that has one."""
    return next(row for row in ROWS if isinstance(op, row.op))


def cycles(spec: StreamSpec) -> float:
    """Estimated cycles: the slower of reading weights and multiplying, and what begins and ends."""
    board, layout = spec.arch.board, spec.layout
    reading = spec.passes * layout.bytes / bytes_per_cycle(spec.arch)
    tokens = spec.passes * spec.pass_tokens
    multiplying = spec.effort * layout.tiles * layout.tile_rows * layout.cols * tokens
    return BEGIN + max(reading, multiplying / (spec.products * board.sms))


def lookup_cycles(spec: LookupSpec, arch: Arch) -> float:
    """Of a product by `lmma`: the slowest of memory, of what warps load, and of looking up."""
    sms = arch.board.sms
    reading = spec.weight_bytes / bytes_per_cycle(arch)
    return BEGIN + max(reading, spec.loaded_bytes / (LOADED * sms), spec.tensor_cycles / sms)


def table_cycles(spec: LookupSpec, arch: Arch) -> float:
    """Of the kernel that makes its tables: what that reads and writes."""
    moved = sum(one.bytes for one in TablesSpec(spec.tokens, spec.cols).parameters)
    return BEGIN + moved / bytes_per_cycle(arch)


def bytes_per_cycle(arch: Arch) -> float:
    """What the memory of its board streams."""
    return STREAMED * arch.board.bandwidth * 1e3 / arch.board.clock


CUDA = CudaTarget()
