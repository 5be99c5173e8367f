"""Scheduled IR becomes kernels of a GPU: one for each product, and for what it quantizes."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from xdsl.dialects import arith, func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import BlockArgument, Operation, OpResult, SSAValue

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.dataflows import ROWS, dataflow_of
from nybble.backends.gpu.image import KernelImage
from nybble.backends.gpu.kernels.matmul.spec import PLAIN, Epilogue, Quantized, StreamSpec
from nybble.backends.gpu.kernels.rows.machine import RowKernel
from nybble.backends.gpu.kernels.rows.quantize import NormBefore, QuantizeSpec
from nybble.backends.gpu.products import compile_spec, quantizer
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.fused.ops import GluOp, RmsNormOp
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.ops import QuantizeOp
from nybble.dialects.mpgemm.ops import ProductOp, QuantizedProductOp
from nybble.dialects.mpgemm.stream import (
    StreamBitserialMatmulOp,
    StreamFloatProductOp,
    StreamIntMatmulOp,
)
from nybble.dialects.shapes import check_rank
from nybble.passes.fixed_products import fixed_product
from nybble.passes.targets import Product


class Compiled(Protocol):
    """A kernel that was compiled."""

    @property
    def image(self) -> KernelImage:
        """The kernel and its launch."""
        ...

    def source(self) -> str:
        """The kernel as CUDA C++."""
        ...


@dataclass(frozen=True)
class Quantizer:
    """The kernel of a quantization; see Compiled."""

    kernel: RowKernel
    image: KernelImage

    def source(self) -> str:
        """See Compiled."""
        return self.kernel.source()


@dataclass(frozen=True)
class Work:
    """What one launch computes: `op`, or products with what is done to them.

    products: the product, and before it that of a gate. norm: what `op` quantizes, if a norm.
    """

    op: Operation
    products: tuple[ProductOp, ...] = ()
    epilogue: Epilogue = PLAIN
    norm: RmsNormOp | None = None

    def kernel(self, arch: str) -> tuple[Product, StreamSpec]:
        """The product, and what its kernel is made for; raises NybbleError if it has none."""
        ops = self.products or (self.op,)
        first, *others = (product_of(one, arch) for one in ops)
        flows = {dataflow_of(one).op for one in ops}
        if any(other != first for other in others) or len(flows) > 1:
            raise NybbleError(
                f"a gated unit of {first} and {others[0]} has no kernel on a GPU",
                location=location_of(self.op),
                accepted="two products of one format and shape",
            )
        try:
            return first, dataflow_of(ops[0]).spec(first, arch, self.epilogue)
        except NybbleError as error:
            error.location = error.location or location_of(self.op)
            raise


def compile_products(module: ModuleOp, arch: str) -> list[Compiled]:
    """The kernels of a module at the scheduled stage, in program order.

    Raises NybbleError at an operation that has no kernel, before any code is generated.
    """
    named = list(named_works(module))
    kernels = {work: work.kernel(arch) for _, work in named if not isinstance(work.op, QuantizeOp)}
    wanted = [(name, work, quantizations(work, kernels)) for name, work in named]
    made: list[Compiled] = []
    for name, work, read in wanted:
        if work in kernels:
            product, spec = kernels[work]
            made.append(compile_spec(product.description.spec, spec, name))
        for number, one in enumerate(read):
            tag = f"_{number}" if number else ""
            kernel = quantizer(one, name + tag)
            made.append(Quantizer(kernel, kernel.image(find_arch(arch))))
    return made


def named_works(module: ModuleOp) -> Iterator[tuple[str, Work]]:
    """What all kernels do, with the names of what is made of it."""
    for function in [one for one in module.ops if isinstance(one, func.FuncOp)]:
        kernels = [one for one in function.walk() if isinstance(one, KernelOp)]
        inner = [op for one in kernels for op in one.body.block.ops if not isinstance(op, YieldOp)]
        works = [work_of(op) for op in inner]
        inside = {op for work in works for op in (*work.products, work.norm)}
        stem = "".join(c if c.isalnum() else "_" for c in function.sym_name.data)
        alone = [work for work in works if work.op not in inside]
        yield from ((f"k_{stem}_{index}", work) for index, work in enumerate(alone))


def work_of(op: Operation) -> Work:
    """An operation, with products that nothing else reads where it is fused to their end, or with a
    norm of whole rows that nothing else reads where it rounds it to bytes.
    """
    if isinstance(op, QuantizeOp) and isinstance(norm := op.input.owner, RmsNormOp):
        (length,) = check_rank("weight", norm.weight, 1)
        bytes_of_rows = op.result.type.format.data == "a8" and length == op.result.type.cols
        if bytes_of_rows and op.input.has_one_use():
            return Work(op, norm=norm)
    if isinstance(op, GluOp):
        pair = [only_product(op.gate), only_product(op.up)]
        products = tuple(one for one in pair if one is not None)
        if len(products) == len(pair):
            return Work(op, products, Epilogue(op.activation.data))
    if isinstance(op, arith.AddfOp):
        for value in op.operands:
            product = only_product(value)
            if product is not None:
                return Work(op, (product,), Epilogue(residual=True))
    return Work(op)


def only_product(value: SSAValue) -> ProductOp | None:
    """The product that makes a value, if that is used once."""
    owner = value.owner
    return owner if isinstance(owner, ProductOp) and value.has_one_use() else None


def quantizations(
    work: Work, kernels: Mapping[Work, tuple[Product, StreamSpec]]
) -> list[Quantized]:
    """What is made of a quantization: once in each order in which some product reads it.

    Nothing for another operation; raises NybbleError for a quantization that no product reads.
    """
    op = work.op
    if not isinstance(op, QuantizeOp):
        return []
    readers = [
        normalised(spec.quantized, work.norm)
        for reader, (_, spec) in kernels.items()
        for product in reader.products or (reader.op,)
        if isinstance(product, QuantizedProductOp) and origin(product.activation) is op.result
    ]
    if not readers:
        raise NybbleError(
            "a quantization that no product of the function reads has no kernel on a GPU",
            location=location_of(op),
        )
    return list(dict.fromkeys(one for one in readers if one is not None))


def normalised(quantized: Quantized | None, norm: RmsNormOp | None) -> Quantized | None:
    """A quantization with the norm before it, if there is one."""
    if norm is None or not isinstance(quantized, QuantizeSpec):
        return quantized
    before = NormBefore(norm.eps.value.data, norm.unit_offset is not None)
    return replace(quantized, norm=before)


def origin(value: SSAValue) -> SSAValue:
    """The value that one in a kernel is: what made it in that or in an earlier kernel."""
    while True:
        if isinstance(value, BlockArgument) and isinstance(value.block.parent_op(), KernelOp):
            kernel = value.block.parent_op()
            assert isinstance(kernel, KernelOp)
            value = kernel.inputs[value.index]
        elif isinstance(value, OpResult) and isinstance(value.op, KernelOp):
            last = value.op.body.block.last_op
            assert isinstance(last, YieldOp)
            value = last.operands[value.index]
        else:
            return value


def product_of(op: Operation, arch: str) -> Product:
    """The product that an operation of a kernel is; raises NybbleError for any other."""
    activations = ""
    if isinstance(op, StreamFloatProductOp):
        activations = op.precision.data
    elif isinstance(op, StreamIntMatmulOp):
        activations = "i8"
    elif isinstance(op, StreamBitserialMatmulOp):
        activations = f"b{op.activation_type.number_format.element.bits}"
    return fixed_product(op, tuple(row.op for row in ROWS), "a GPU", activations, arch)


def described(image: KernelImage) -> dict[str, Any]:
    """An image as a manifest has it: all but the PTX, which is a file of its own."""
    fields = asdict(image)
    del fields["ptx"]
    return {"file": f"{image.name}.ptx", **fields}
