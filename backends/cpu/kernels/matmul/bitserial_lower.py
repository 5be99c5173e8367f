"""From a BitserialSpec to a kernel."""

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.buffers import BufferSpec
from nybble.backends.cpu.kernels.matmul.bitserial import BitserialSpec
from nybble.backends.cpu.kernels.matmul.bitserial_gemm import bit_gemm
from nybble.backends.cpu.kernels.matmul.bitserial_gemv import bit_gemv_buffers, lower_bit_gemv


def lower_bitserial(spec: BitserialSpec, name: str) -> FuncOp:
    """The kernel of a spec: `func.func @name(buffers.., n, pos, tid, nth)`."""
    return bit_gemm(spec).lower(name) if spec.tokens > 1 else lower_bit_gemv(spec, name)


def bitserial_buffers(spec: BitserialSpec) -> list[BufferSpec]:
    """The memref arguments of `lower_bitserial(spec, ..)` in order; see ProductSpec.buffers."""
    return spec.buffers(bit_gemm(spec).scratch.size) if spec.tokens > 1 else bit_gemv_buffers(spec)
