"""A module of one kernel becomes PTX: through upstream MLIR, then LLVM's `opt` and `llc`."""

from io import StringIO

from xdsl.dialects.builtin import ModuleOp
from xdsl.printer import Printer

from nybble.backends.gpu.arch import Arch
from nybble.backends.llvm.toolchain import run
from nybble.backends.llvm.workers import lower

TRIPLE = "nvptx64-nvidia-cuda"
UNROLL = "-disable-loop-unrolling"
"""Kernels are written unrolled as far as registers allow."""


def generic_text(module: ModuleOp) -> str:
    """The module in the generic form that upstream MLIR parses."""
    stream = StringIO()
    Printer(stream=stream, print_generic_format=True).print_op(module)
    return stream.getvalue()


def assemble(llvm_ir: str, arch: Arch) -> str:
    """The PTX of a module of LLVM IR; raises CodegenError if LLVM gives up.

    Pointers to shared memory have 32 bits, so that its addresses are computed in one register.
    """
    options = ["-O3", f"-mtriple={TRIPLE}", f"-mcpu={arch.real}", f"-mattr=+{arch.ptx}"]
    options.append("--nvptx-short-ptr")
    bitcode = run("opt", [*options, UNROLL], llvm_ir.encode())
    return run("llc", options, bitcode).decode()


def compile_kernel(module: ModuleOp, arch: Arch) -> str:
    """The PTX of a module that a GpuBuilder finished; raises CodegenError."""
    return assemble(lower(generic_text(module), "nvptx64"), arch)
