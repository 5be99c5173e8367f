"""Matrix products on a GPU: one call gives the kernel, the packer and the reference.

    product = compile_product("w4g128", rows=8192, cols=8192, tokens=1, arch="sm_90a")
    packed = product.pack(weight)                 # u8 [n], what the kernel's `w` points to
    image = product.image                         # PTX, grid, block, shared bytes, parameters

The parameters of `image`, in order, are buffers:

    x         [tokens, cols], row by row, of the activations' type; read
    w         u8 [n], what `pack` gives; read
    y         [tokens, rows], row by row, of `output`'s type; written
    sums      scratch, contents do not matter before or after
    counters  i32; zeros before the first launch, and every launch leaves zeros again

Launches that share `sums` and `counters` must not overlap.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.codegen import compile_kernel
from nybble.backends.gpu.image import KernelImage
from nybble.backends.gpu.kernels.matmul.flat import FlatKernel
from nybble.backends.gpu.kernels.matmul.spec import FlatSpec, Tuning
from nybble.backends.gpu.packing.kind import WeightKind, weight_kind
from nybble.backends.gpu.packing.pack import pack_stream
from nybble.backends.gpu.packing.placement import FloatType, Placement, fewest_fragments, fits
from nybble.backends.gpu.packing.stream import UNIT, StreamLayout
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import Weight

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class ProductError(NybbleError):
    """A product that no kernel computes."""


@dataclass(frozen=True)
class Product:
    """A compiled product; see the module's text. spec: what the kernel was made for."""

    format: str
    spec: FlatSpec
    image: KernelImage

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights, all of which a launch reads once."""
        return self.spec.layout.bytes

    def pack(self, weight: Weight) -> Bytes:
        """u8 [weight_bytes]; raises PackingError or NybbleError for what does not fit."""
        layout = self.spec.layout
        if weight.spec != self.format or weight.shape != (layout.rows, layout.cols):
            raise ProductError(
                f"a weight of '{weight.spec}' {weight.shape} for a product of '{self.format}'",
                accepted=f"'{self.format}' ({layout.rows}, {layout.cols})",
            )
        zero = weight.zero
        if layout.zero == "points":
            assert weight.zero_codes is not None
            zero = weight.zero_codes.astype(np.float32)
        return pack_stream(layout, weight.require_codes(), weight.scale, zero)

    def reference(self, x: Floats, weight: Weight) -> Floats:
        """f32 [tokens, rows] of x [tokens, cols], summed in f64, of any output type."""
        exact = x.astype(np.float64) @ weight.dequantize().astype(np.float64).T
        return exact.astype(np.float32)


def compile_product(
    format: str,
    rows: int,
    cols: int,
    tokens: int,
    arch: str = "sm_90a",
    activations: FloatType = "f16",
    output: str | None = None,
    tuning: Tuning | None = None,
) -> Product:
    """The kernel of a product; raises NybbleError with the reason for what has none.

    output: type of the results, that of the activations by default.
    """
    description = formats.get(format)
    description.check_shape((rows, cols))
    kind = weight_kind(description, cols)
    layout = stream_layout(kind, rows, cols, activations)
    spec = FlatSpec(
        layout, kind, tokens, find_arch(arch), activations, output or activations,
        fitted(layout, find_arch(arch).shared, tuning or Tuning()),
    )  # fmt: skip
    name = f"matmul_{tokens}x{rows}x{cols}"
    ptx = compile_kernel(FlatKernel(spec, name).build(), spec.arch)
    facts = {"format": description.spec, "rows": rows, "cols": cols, "tokens": tokens}
    image = KernelImage(
        name, spec.arch.name, ptx, spec.parameters, (spec.blocks, 1, 1),
        (32 * spec.tuning.warps, 1, 1), spec.shared, zeroed=("counters",), facts=facts,
    )  # fmt: skip
    return Product(description.spec, spec, image)


def stream_layout(kind: WeightKind, rows: int, cols: int, dtype: FloatType) -> StreamLayout:
    """The layout for a kind of weights; raises ProductError where there is none."""
    if not fits(kind.bits, dtype):
        raise ProductError(
            f"codes of {kind.bits} bits with activations {dtype}", accepted="activations f16"
        )
    if cols % UNIT:
        raise ProductError(f"{cols} columns", accepted=f"a multiple of {UNIT} columns")
    fragments = fewest_fragments(kind.bits)
    step = step_columns(kind, cols, 256 if kind.bits * fragments <= 4 else 128)
    placement = Placement(kind.bits, fragments, dtype)
    return StreamLayout(rows, cols, placement, kind.group, step, kind.scale, kind.zero)


def step_columns(kind: WeightKind, cols: int, most: int) -> int:
    """Columns of a record: the most that divide the columns and go with the group."""
    for step in (most, 128, UNIT):
        divides = step % kind.group == 0 or kind.group % step == 0 or kind.group == cols
        if step <= most and cols % step == 0 and divides and kind.group % 16 == 0:
            return step
    raise ProductError(f"groups of {kind.group} columns", accepted="groups of 16, 32, 64, 128, ..")


def fitted(layout: StreamLayout, shared: int, tuning: Tuning) -> Tuning:
    """The tuning with as many stages as shared memory has room for."""
    slots = shared // tuning.blocks_per_sm // (tuning.warps * layout.record_bytes)
    if slots < 2:
        raise ProductError(f"records of {layout.record_bytes} bytes for {tuning.warps} warps")
    return replace(tuning, stages=min(tuning.stages, slots))
