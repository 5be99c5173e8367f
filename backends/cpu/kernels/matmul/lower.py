"""From a MatmulSpec to a kernel: which product computes it, and the function."""

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.buffers import BufferSpec
from nybble.backends.cpu.kernels.matmul.adding import gemv_scratch
from nybble.backends.cpu.kernels.matmul.codes import Codes
from nybble.backends.cpu.kernels.matmul.gemm import Gemm, Product
from nybble.backends.cpu.kernels.matmul.gemm_amx import TILE_COLUMNS, AmxProduct, amx_tiles
from nybble.backends.cpu.kernels.matmul.gemm_dot import DotProduct, dot_tiles
from nybble.backends.cpu.kernels.matmul.gemm_f32 import F32Product, f32_tiles
from nybble.backends.cpu.kernels.matmul.gemv import lower_gemv
from nybble.backends.cpu.kernels.matmul.gemv_f32 import lower_gemv_f32
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec


def takes_tiles(spec: MatmulSpec) -> bool:
    """Whether AMX computes a spec: many tokens, rounding to bf16 allowed, whole tiles of columns.

    Integer products stay exact: they take no tiles of bf16.
    """
    group = spec.weight.group if isinstance(spec.weight, Codes) else TILE_COLUMNS
    whole = group % TILE_COLUMNS == 0 or TILE_COLUMNS % group == 0
    fits = spec.tokens > 1 and spec.cols % TILE_COLUMNS == 0 and whole
    return spec.isa.tiles and spec.activations == "bf16" and fits


def product(spec: MatmulSpec) -> Product:
    """The product that computes a spec with many tokens."""
    if takes_tiles(spec):
        return AmxProduct(spec, amx_tiles(spec))
    if spec.activations == "a8":
        return DotProduct(spec, dot_tiles(spec))
    return F32Product(spec, f32_tiles(spec.isa))


def lower_matmul(spec: MatmulSpec, name: str) -> FuncOp:
    """The kernel of a spec: `func.func @name(buffers.., n, pos, tid, nth)`.

    Its buffers are `matmul_buffers(spec)`.
    """
    if spec.tokens > 1:
        return Gemm(spec, product(spec)).lower(name)
    return lower_gemv(spec, name) if spec.activations == "a8" else lower_gemv_f32(spec, name)


def matmul_buffers(spec: MatmulSpec) -> list[BufferSpec]:
    """The memref arguments of `lower_matmul(spec, ..)` in order; see MatmulSpec.buffers."""
    if spec.tokens > 1:
        return spec.buffers(Gemm(spec, product(spec)).scratch.size)
    return spec.buffers(gemv_scratch(spec))
