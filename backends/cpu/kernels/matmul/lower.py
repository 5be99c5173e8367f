"""From a MatmulSpec and a choice of sizes to a kernel: which product computes it, and the function.

Every function takes the sizes that a schedule asks for, some or none of those of `space_of`.
"""

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.buffers import BufferSpec
from nybble.backends.cpu.kernels.matmul.adding import gemv_scratch
from nybble.backends.cpu.kernels.matmul.codes import Codes
from nybble.backends.cpu.kernels.matmul.gemm import Gemm, Product
from nybble.backends.cpu.kernels.matmul.gemm_amx import TILE_COLUMNS, AmxProduct, amx_tiles
from nybble.backends.cpu.kernels.matmul.gemm_dot import DotProduct
from nybble.backends.cpu.kernels.matmul.gemm_f32 import F32Product
from nybble.backends.cpu.kernels.matmul.gemv import lower_gemv
from nybble.backends.cpu.kernels.matmul.gemv_f32 import lower_gemv_f32
from nybble.backends.cpu.kernels.matmul.space import (
    GEMM,
    GEMV,
    GEMV_F32,
    float_gemv_tiles,
    gemm_tiles,
    integer_gemv_tiles,
)
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.schedule_space import NO_OPTIONS, Options, Space

AMX: Space[MatmulSpec] = Space()
"""The sizes of AMX tiles are the machine's."""


def takes_tiles(spec: MatmulSpec) -> bool:
    """Whether AMX computes a spec: many tokens, rounding to bf16 allowed, whole tiles of columns.

    Integer products stay exact: they take no tiles of bf16.
    """
    group = spec.weight.group if isinstance(spec.weight, Codes) else TILE_COLUMNS
    whole = group % TILE_COLUMNS == 0 or TILE_COLUMNS % group == 0
    fits = spec.tokens > 1 and spec.cols % TILE_COLUMNS == 0 and whole
    return spec.isa.tiles and spec.activations == "bf16" and fits


def space_of(spec: MatmulSpec) -> Space[MatmulSpec]:
    """The sizes that a schedule may choose for a spec."""
    if spec.tokens == 1:
        return GEMV if spec.activations == "a8" else GEMV_F32
    return AMX if takes_tiles(spec) else GEMM


def product(spec: MatmulSpec, options: Options = NO_OPTIONS) -> Product:
    """The product that computes a spec with many tokens; raises ScheduleError."""
    chosen = space_of(spec).settle(spec, options)
    if takes_tiles(spec):
        return AmxProduct(spec, amx_tiles(spec))
    if spec.activations == "a8":
        return DotProduct(spec, gemm_tiles(chosen))
    return F32Product(spec, gemm_tiles(chosen))


def lower_matmul(spec: MatmulSpec, name: str, options: Options = NO_OPTIONS) -> FuncOp:
    """The kernel of a spec: `func.func @name(buffers.., n, pos, tid, nth)`.

    Its buffers are `matmul_buffers(spec, options)`. Raises ScheduleError.
    """
    if spec.tokens > 1:
        return Gemm(spec, product(spec, options)).lower(name)
    chosen = space_of(spec).settle(spec, options)
    if spec.activations == "a8":
        return lower_gemv(spec, name, integer_gemv_tiles(chosen))
    return lower_gemv_f32(spec, name, float_gemv_tiles(spec, chosen))


def matmul_buffers(spec: MatmulSpec, options: Options = NO_OPTIONS) -> list[BufferSpec]:
    """The memref arguments of `lower_matmul(spec, ..)` in order; see MatmulSpec.buffers."""
    if spec.tokens > 1:
        return spec.buffers(Gemm(spec, product(spec, options)).scratch.size)
    return spec.buffers(gemv_scratch(spec))
