"""Matrix products on a GPU: one call gives the kernel, the packer and the reference.

    product = compile_product("w4g128", rows=8192, cols=8192, tokens=1, arch="sm_90a")
    packed = product.pack(weight)                 # u8 [n], what the kernel's `w` points to
    image = product.image                         # PTX, grid, block, shared bytes, parameters

The parameters of `image`, in order, are buffers:

    x         [tokens, cols], row by row, of the activations' type; read. With activations "i8"
              these are x, scales and totals, which `quantizer` makes of f32 [tokens, cols]
    w         u8 [n], what `pack` gives; read
    residual  [tokens, rows], as y; read, and only there where an epilogue adds it
    y         [tokens, rows], row by row, of `output`'s type; written
    sums      scratch, contents do not matter before or after
    counters  i32; zeros before the first launch, and every launch leaves zeros again

Launches that share `sums` and `counters` must not overlap.
"""

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.gpu.arch import ARCHS, Arch, find_arch
from nybble.backends.gpu.codegen import compile_kernel
from nybble.backends.gpu.cuda.source import cuda_source
from nybble.backends.gpu.image import KernelImage
from nybble.backends.gpu.kernels.matmul.flat import FlatKernel
from nybble.backends.gpu.kernels.matmul.integer import IntegerKernel, IntegerSpec
from nybble.backends.gpu.kernels.matmul.serial import SerialKernel, SerialSpec
from nybble.backends.gpu.kernels.matmul.spec import (
    PLAIN,
    Epilogue,
    FlatSpec,
    Quantized,
    StreamSpec,
    Tuning,
)
from nybble.backends.gpu.kernels.matmul.warpgroup import (
    FEWEST_TOKENS,
    WARPGROUPS,
    WarpgroupKernel,
    WarpgroupSpec,
)
from nybble.backends.gpu.kernels.rows.machine import RowKernel
from nybble.backends.gpu.kernels.rows.planes import PlanesSpec, planes_kernel
from nybble.backends.gpu.kernels.rows.quantize import quantize_kernel
from nybble.backends.gpu.kernels.warpgroup import WARPS
from nybble.backends.gpu.packing.fields import MANTISSA
from nybble.backends.gpu.packing.kind import (
    Line,
    Meaning,
    Small,
    Split,
    Table,
    WeightKind,
    of_integers,
    weight_kind,
)
from nybble.backends.gpu.packing.outliers import split_rows, with_outliers, with_tables
from nybble.backends.gpu.packing.pack import Codes, pack_stream
from nybble.backends.gpu.packing.placement import Placement, fewest_fragments
from nybble.backends.gpu.packing.stream import UNIT, PlaneLayout, StreamLayout
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.numpy_ref.glu import ACTIVATIONS

MOST_TOKENS = 16384
PLANES: dict[str, int] = {"b1": 1, "b2": 2, "b3": 3, "b4": 4}
"""Activations in bit planes: how many."""
MOST_PLANES = 4
BLOCKS = (256, 128)
"""Columns of an `mma` on bits."""
LEAST_OUTLIERS = 64
"""Outliers that there is room for beside the share of a format: small matrices may have more."""
Activations = Literal["f16", "bf16", "i8", "b1", "b2", "b3", "b4"]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
T = TypeVar("T", bound=np.generic)


class ProductError(NybbleError):
    """A product that no kernel computes."""


@dataclass(frozen=True)
class Product:
    """A compiled product; see the module's text.

    spec: what the kernel was made for.
    """

    format: str
    spec: StreamSpec
    image: KernelImage

    @cached_property
    def quantizer(self) -> KernelImage | None:
        """The kernel that makes its activations of f32, where they are integers."""
        quantized = self.spec.quantized
        return None if quantized is None else quantizer(quantized).image(self.spec.arch)

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights, all of which a launch reads once."""
        return self.spec.layout.bytes

    def source(self) -> str:
        """The kernel as CUDA C++; see `cuda.source`."""
        module = build(self.spec, self.image.name)
        return cuda_source(module, [one.name for one in self.spec.parameters])

    def pack(self, weight: Weight, gate: Weight | None = None) -> Bytes:
        """u8 [weight_bytes], with the weight of a gate where the epilogue has one.

        Raises PackingError or NybbleError for what does not fit.
        """
        given = [weight] if gate is None else [gate, weight]
        shape = (self.spec.features, self.spec.layout.cols)
        for one in given:
            if one.spec != self.format or one.shape != shape:
                raise ProductError(
                    f"a weight of '{one.spec}' {one.shape} for a product of '{self.format}'",
                    accepted=f"'{self.format}' {shape}",
                )
        if (gate is not None) != bool(self.spec.epilogue.gate):
            raise ProductError(f"{len(given)} weight(s)", accepted="one, and one of a gate if any")
        layout = self.spec.layout
        found = [self._parts(one) for one in given]
        codes, scale, zero = (
            None if any(part is None for part in parts) else reduce(alternating, parts)
            for parts in zip(*found, strict=True)
        )
        assert codes is not None
        alone = len(given) == 1
        added = [
            one.outliers if alone else replace(one.outliers, rows=alternate(one.outliers.rows, i))
            for i, one in enumerate(given)
            if one.outliers is not None
        ]
        if not isinstance(self.spec.kind.meaning, Split):
            return with_outliers(layout, pack_stream(layout, codes, scale, zero), added)
        codes, tables, left = split_rows(layout, codes)
        stream = with_tables(layout, pack_stream(layout, codes, None), tables)
        return with_outliers(layout, stream, [*added, left])

    def _parts(self, weight: Weight) -> tuple[Codes, Floats | None, Floats | None]:
        """Codes, scales and zeros as the stream has them; the bits of lossless weights."""
        zero, kind = weight.zero, self.spec.kind
        if isinstance(kind.meaning, Split):
            return bf16_bits(weight.require_values()), None, None
        if self.spec.layout.zero == "points":
            assert weight.zero_codes is not None
            zero = weight.zero_codes.astype(np.float32)
        codes = weight.require_codes()
        _check_numbers(codes, kind)
        return codes, weight.scale / np.float32(kind.unit), zero

    def reference(
        self,
        x: Floats,
        weight: Weight,
        gate: Weight | None = None,
        residual: Floats | None = None,
    ) -> Floats:
        """f32 [tokens, rows] of x [tokens, cols], in f64, of any output type."""
        exact = x.astype(np.float64) @ weight.dequantize().astype(np.float64).T
        if gate is not None:
            opened = x.astype(np.float64) @ gate.dequantize().astype(np.float64).T
            exact = ACTIVATIONS[self.spec.epilogue.gate](opened) * exact
        if residual is not None:
            exact = exact + residual
        return exact.astype(np.float32)


def alternate(rows: npt.NDArray[np.int32], which: int) -> npt.NDArray[np.int32]:
    """Where rows of the first matrix, or of the second if `which` is 1, are in `alternating`."""
    return rows // 16 * 32 + 16 * which + rows % 16


def bf16_bits(values: Floats) -> npt.NDArray[np.uint16]:
    """The patterns of f32 that are bf16."""
    return (np.ascontiguousarray(values).view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def alternating(first: npt.NDArray[T], second: npt.NDArray[T]) -> npt.NDArray[T]:
    """Rows of two matrices, 16 of each in turn; the last of each are filled up with zeros."""
    size = -(-len(first) // 16) * 16
    padded = [np.pad(one, ((0, size - len(one)), (0, 0))) for one in (first, second)]
    pairs = np.stack([one.reshape(-1, 16, one.shape[1]) for one in padded], axis=1)
    return pairs.reshape(2 * size, -1)


def compile_product(
    format: str,
    rows: int,
    cols: int,
    tokens: int,
    arch: str = "sm_90a",
    activations: Activations = "f16",
    output: str | None = None,
    tuning: Tuning | None = None,
    epilogue: Epilogue = PLAIN,
    *,
    warpgroups: bool = False,
) -> Product:
    """The kernel of a product; raises NybbleError with the reason for what has none.

    output: type of the results, that of the activations by default, f32 of integers. tuning:
    `usual_tuning` by default; stages are as many of it as shared memory has room for. epilogue:
    what results have beyond products; the rows of a gated unit are those of each of its factors.
    warpgroups: whether four warps multiply at once, see `kernels.matmul.warpgroup`.
    """
    spec = product_spec(
        format, rows, cols, tokens, arch, activations, output, tuning, epilogue,
        warpgroups=warpgroups,
    )  # fmt: skip
    return compile_spec(formats.get(format).spec, spec, f"matmul_{tokens}x{rows}x{cols}")


def build(spec: StreamSpec, name: str) -> ModuleOp:
    """The module of a spec's kernel."""
    if isinstance(spec, SerialSpec):
        return SerialKernel(spec, name).build()
    if isinstance(spec, IntegerSpec):
        return IntegerKernel(spec, name).build()
    if isinstance(spec, WarpgroupSpec):
        return WarpgroupKernel(spec, name).build()
    assert isinstance(spec, FlatSpec)
    return FlatKernel(spec, name).build()


def quantizer(quantized: Quantized, name: str = "") -> RowKernel:
    """The kernel of a quantization, under a name if not its own."""
    if isinstance(quantized, PlanesSpec):
        return planes_kernel(quantized, name)
    return quantize_kernel(quantized, name)


def compile_spec(format: str, spec: StreamSpec, name: str) -> Product:
    """The kernel of a spec of `product_spec`, under a name."""
    layout = spec.layout
    facts = {"format": format, "rows": layout.rows, "cols": layout.cols, "tokens": spec.tokens}
    image = KernelImage(
        name,
        spec.arch.name,
        compile_kernel(build(spec, name), spec.arch),
        spec.parameters,
        (spec.blocks, 1, 1),
        (spec.threads, 1, 1),
        spec.shared,
        zeroed=("counters",),
        facts=facts,
    )
    return Product(format, spec, image)


def product_spec(
    format: str,
    rows: int,
    cols: int,
    tokens: int,
    arch: str = "sm_90a",
    activations: Activations = "f16",
    output: str | None = None,
    tuning: Tuning | None = None,
    epilogue: Epilogue = PLAIN,
    *,
    warpgroups: bool = False,
) -> StreamSpec:
    """What the kernel of a product would be made for; otherwise as `compile_product`."""
    description, found = formats.get(format), find_arch(arch)
    description.check_shape((rows, cols))
    if not 1 <= tokens <= MOST_TOKENS or not rows or not cols:
        raise ProductError(
            f"a product of {tokens} tokens, {rows} rows and {cols} columns",
            accepted=f"1 to {MOST_TOKENS} tokens, and at least one row and column",
        )
    kind = weight_kind(description, cols)
    check_outliers(kind, activations, warpgroups=warpgroups)
    if warpgroups:
        check_warpgroups(found, tokens, activations, tuning)
    chosen = tuning or usual_tuning(kind, tokens, activations, warpgroups=warpgroups)
    chosen = replace(chosen, scale=chosen.scale or not kind.scale)
    if epilogue.gate:
        if chosen.fragments % 2:
            raise ProductError(f"a gated unit of {chosen.fragments} fragments", accepted="2, 4")
        epilogue, chosen = replace(epilogue, rows=rows), replace(chosen, split=1)
        rows = 2 * (-(-rows // 16) * 16)
    shape = (rows, cols)
    if activations == "i8":
        kind = of_integers(kind)
        layout = stream_layout(kind, *shape, activations, chosen.fragments)
        spec = IntegerSpec(layout, kind, tokens, found, output or "f32", chosen)
    elif activations == "f16" or activations == "bf16":
        layout = stream_layout(kind, *shape, activations, chosen.fragments)
        make = WarpgroupSpec if warpgroups else FlatSpec
        spec = make(layout, kind, tokens, found, output or activations, chosen, activations)
    else:
        spec = _serial_spec(kind, shape, tokens, found, PLANES[activations], output, chosen)
    spec = replace(spec, epilogue=epilogue)
    return spec.fitted()


def check_outliers(kind: WeightKind, activations: Activations, *, warpgroups: bool) -> None:
    """Raise ProductError for weights with outliers where nothing adds them."""
    if kind.outliers and (warpgroups or activations not in MANTISSA):
        what = "of warpgroups" if warpgroups else f"with activations {activations}"
        raise ProductError(
            f"products {what} of weights with outliers, or without scales",
            accepted="stream, with activations f16 or bf16",
        )


def check_warpgroups(
    arch: Arch, tokens: int, activations: Activations, tuning: Tuning | None
) -> None:
    """Raise ProductError where warpgroups multiply nothing."""
    if not arch.group_products:
        able = ", ".join(one.name for one in ARCHS.values() if one.group_products)
        raise ProductError(f"products of warpgroups on {arch.name}", accepted=able)
    if activations not in MANTISSA:
        raise ProductError(
            f"products of warpgroups with activations {activations}", accepted=", ".join(MANTISSA)
        )
    if tokens < FEWEST_TOKENS:
        raise ProductError(
            f"products of warpgroups of {tokens} tokens", accepted=f"at least {FEWEST_TOKENS}"
        )
    warps = WARPGROUPS * WARPS
    if tuning and (tuning.warps, tuning.split, tuning.blocks_per_sm) != (warps, 1, 1):
        raise ProductError(
            f"products of warpgroups with {tuning}",
            accepted=f"{warps} warps, no split, one block of a multiprocessor",
        )


def _serial_spec(
    kind: WeightKind,
    shape: tuple[int, int],
    tokens: int,
    arch: Arch,
    bits: int,
    output: str | None,
    tuning: Tuning,
) -> SerialSpec:
    """A product of activations in `bits` planes; ProductError where there is none."""
    if "b1" not in arch.native:
        able = ", ".join(one.name for one in ARCHS.values() if "b1" in one.native)
        raise ProductError(f"products of bits on {arch.name}", accepted=able)
    layout = plane_layout(kind, *shape, tuning.fragments)
    return SerialSpec(layout, kind, tokens, arch, output or "f32", tuning, layout, bits)


def usual_tuning(
    kind: WeightKind, tokens: int, dtype: Activations, *, warpgroups: bool = False
) -> Tuning:
    """The tuning for so many tokens, the fastest of those measured on an H100.

    Few warps with little under way each are best: what a block waits for at its start, and its last
    sums, are short.
    """
    small = Tuning(warps=4, stages=3, blocks_per_sm=2)
    if not kind.scale:
        return replace(small, evict_first=tokens <= 8, scale=True)
    if tokens <= 8 or dtype not in MANTISSA:
        return replace(small, evict_first=tokens <= 8)
    if tokens <= 16 and not warpgroups:
        return replace(small, subtract=True)
    # a product that is scaled at its end keeps exact weights, but takes twice the registers
    scale = kind.scale == dtype and (kind.zero != "minimum" or kind.meaning == Line(1, 0))
    if warpgroups:
        small = Tuning(warps=WARPGROUPS * WARPS, stages=3)
    return replace(small, subtract=True, scale=scale)


def usual_fragments(bits: int) -> int:
    """Fragments of a tile: two at least, which share activations and their sums."""
    return max(2, fewest_fragments(bits))


def stream_layout(
    kind: WeightKind, rows: int, cols: int, dtype: Activations, fragments: int = 0
) -> StreamLayout:
    """The layout for a kind of weights; raises ProductError where there is none."""
    check_decoded(kind, dtype)
    if cols % UNIT:
        raise ProductError(f"{cols} columns", accepted=f"a multiple of {UNIT} columns")
    count = fragments or usual_fragments(kind.bits)
    size = kind.bits * count
    step = step_columns(kind, cols, 256 if size <= 4 else 128 if size <= 12 else UNIT)
    is_split = isinstance(kind.meaning, Split)
    placement = Placement(kind.bits, count, apart=not isinstance(kind.meaning, Table | Split))
    room = rows * cols * kind.outliers // 1000 + LEAST_OUTLIERS if kind.outliers else 0
    return StreamLayout(
        rows, cols, placement, kind.group, step, kind.scale, kind.zero, is_split, room
    )


def plane_layout(kind: WeightKind, rows: int, cols: int, fragments: int = 0) -> PlaneLayout:
    """The layout for weights in bit planes; raises ProductError where there is none."""
    if not isinstance(kind.meaning, Line) or kind.bits > MOST_PLANES:
        raise ProductError(
            "weights whose codes are no integers on a line, of up to 4 bits, as bit planes",
            accepted="activations f16",
        )
    if cols % BLOCKS[-1] or (kind.group % BLOCKS[-1] and kind.group != cols):
        raise ProductError(
            f"{cols} columns in groups of {kind.group}",
            accepted=f"multiples of {BLOCKS[-1]} columns",
        )
    step = step_columns(kind, cols, {1: 512, 2: 256}.get(kind.bits, 128))
    block = next(one for one in BLOCKS if step % one == 0 and kind.group % one == 0)
    count = fragments or 2
    size = step // max(1, step // kind.group)
    assert size * (2**kind.bits - 1) <= 2**11, "sums of codes are exact in f16"
    scale = "f16" if kind.scale == "f16" else "f32"
    placement = Placement(kind.bits, count)
    return PlaneLayout(rows, cols, placement, kind.group, step, scale, kind.zero, block=block)


def check_decoded(kind: WeightKind, dtype: Activations) -> None:
    """Raise ProductError unless codes become numbers of the activations' type."""
    if dtype == "i8":
        if not is_integer(kind.meaning):
            raise ProductError(
                "weights whose codes are no 8-bit integers with activations i8",
                accepted="activations f16",
            )
        return
    if isinstance(kind.meaning, Split) and dtype != "bf16":
        raise ProductError(f"bf16 weights with activations {dtype}", accepted="activations bf16")
    if isinstance(kind.meaning, Line) and kind.bits > MANTISSA[dtype]:
        raise ProductError(
            f"codes of {kind.bits} bits with activations {dtype}", accepted="activations f16"
        )
    if isinstance(kind.meaning, Small) and kind.meaning.mantissa > MANTISSA[dtype]:
        raise ProductError(f"codes of {kind.meaning} with activations {dtype}")


def is_integer(meaning: Meaning) -> bool:
    """Whether codes are on a line, or of a table of integers of 8 bits."""
    if isinstance(meaning, Table):
        return all(value == int(value) and -128 <= value < 128 for value in meaning.values)
    return isinstance(meaning, Line)


def step_columns(kind: WeightKind, cols: int, most: int) -> int:
    """Columns of a record: the most that divide the columns and go with the group."""
    for step in dict.fromkeys((most, 256, 128, UNIT)):
        divides = step % kind.group == 0 or kind.group % step == 0 or kind.group == cols
        if step <= most and cols % step == 0 and divides and kind.group % 16 == 0:
            return step
    raise ProductError(f"groups of {kind.group} columns", accepted="groups of 16, 32, 64, 128, ..")


def _check_numbers(codes: Bytes, kind: WeightKind) -> None:
    """Raise ProductError for a code that is no number but would be decoded as one."""
    if not isinstance(kind.meaning, Small) or not kind.meaning.has_nan:
        return
    largest = 2 ** (kind.bits - 1) - 1
    if (codes & largest == largest).any():
        raise ProductError(f"a weight with the code {largest:#x}, which is NaN")
