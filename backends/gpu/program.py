"""Scheduled IR becomes kernels of a GPU: one for each product."""

from dataclasses import asdict
from typing import Any

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from nybble.backends.gpu.dataflows import spec_of
from nybble.backends.gpu.image import KernelImage
from nybble.backends.gpu.products import Product as Compiled
from nybble.backends.gpu.products import compile_spec
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.locations import location_of
from nybble.dialects.mpgemm.stream import StreamMatmulOp
from nybble.passes.fixed_products import fixed_product
from nybble.passes.targets import Product


def compile_products(module: ModuleOp, arch: str) -> list[Compiled]:
    """The kernels of a module at the scheduled stage, in program order.

    Raises NybbleError at an operation that has no kernel, before any code is generated.
    """
    wanted: list[tuple[str, Product, Operation]] = []
    for function in [one for one in module.ops if isinstance(one, func.FuncOp)]:
        kernels = [one for one in function.walk() if isinstance(one, KernelOp)]
        inner = [op for one in kernels for op in one.body.block.ops if not isinstance(op, YieldOp)]
        stem = "".join(c if c.isalnum() else "_" for c in function.sym_name.data)
        for index, op in enumerate(inner):
            wanted.append((f"k_{stem}_{index}", product_of(op, arch), op))
    specs = [(name, product, _spec(product, arch, op)) for name, product, op in wanted]
    return [compile_spec(one.description.spec, spec, name) for name, one, spec in specs]


def product_of(op: Operation, arch: str) -> Product:
    """The product that an operation of a kernel is; raises NybbleError for any other."""
    activations = op.precision.data if isinstance(op, StreamMatmulOp) else ""
    return fixed_product(op, StreamMatmulOp, "a GPU", activations, arch)


def _spec(product: Product, arch: str, op: Operation):
    try:
        return spec_of(product, arch)
    except NybbleError as error:
        error.location = error.location or location_of(op)
        raise


def described(image: KernelImage) -> dict[str, Any]:
    """An image as a manifest has it: all but the PTX, which is a file of its own."""
    fields = asdict(image)
    del fields["ptx"]
    return {"file": f"{image.name}.ptx", **fields}
