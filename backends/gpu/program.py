"""Scheduled IR becomes kernels of a GPU: one for each launch of each function."""

from dataclasses import asdict
from typing import Any

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.image import KernelImage
from nybble.backends.gpu.steps.lower import steps_of
from nybble.backends.gpu.steps.step import Compiled
from nybble.backends.gpu.steps.values import Storage


def compile_program(module: ModuleOp, arch: str) -> list[Compiled]:
    """The kernels of a module at the scheduled stage, in program order.

    Raises NybbleError at an operation that has no kernel, before any code is generated.
    """
    found = find_arch(arch)
    functions = [one for one in module.ops if isinstance(one, func.FuncOp)]
    steps = [(stem(one), steps_of(one, found, Storage())) for one in functions]
    return [
        step.compile(found, f"k_{name}_{index}")
        for name, each in steps
        for index, step in enumerate(each)
    ]


def stem(function: func.FuncOp) -> str:
    """The name of a function, as names of kernels can have it."""
    return "".join(c if c.isalnum() else "_" for c in function.sym_name.data)


def described(image: KernelImage) -> dict[str, Any]:
    """An image as a manifest has it: all but the PTX, which is a file of its own."""
    fields = asdict(image)
    del fields["ptx"]
    return {"file": f"{image.name}.ptx", **fields}
