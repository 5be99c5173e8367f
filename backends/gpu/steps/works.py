"""What one launch computes: an operation of a kernel, with those that are fused to it."""

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.dialects import arith, func
from xdsl.ir import Operation, SSAValue

from nybble.backends.gpu.dataflows import ROWS, ProductSpec, dataflow_of
from nybble.backends.gpu.kernels.matmul.spec import PLAIN, Epilogue
from nybble.backends.gpu.steps.values import Storage
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.fused.ops import GluOp, RmsNormOp, RopeOp
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.ops import QuantizeOp
from nybble.dialects.mpgemm.ops import ProductOp
from nybble.dialects.mpgemm.stream import (
    StreamBitserialMatmulOp,
    StreamFloatProductOp,
    StreamIntMatmulOp,
    StreamLookupMatmulOp,
)
from nybble.dialects.shapes import check_rank
from nybble.dialects.sparse_attn.ops import AppendKVOp
from nybble.passes.fixed_products import fixed_product
from nybble.passes.targets import Product


@dataclass(frozen=True)
class Work:
    """What one launch computes: `op`, or products with what is done to them.

    op: a whole kernel where that is a rotation. products: the product, and before it that of a
    gate. norm: what `op` quantizes, if a norm.
    """

    op: Operation
    products: tuple[ProductOp, ...] = ()
    epilogue: Epilogue = PLAIN
    norm: RmsNormOp | None = None

    @property
    def is_product(self) -> bool:
        """Whether it multiplies."""
        return bool(self.products)

    def kernel(self, arch: str, storage: Storage) -> tuple[Product, ProductSpec]:
        """The product, and what its kernel is made for; raises NybbleError if it has none."""
        first, output = self.products[0], storage.of(self.op.results[0])
        product = product_of(first, arch)
        return product, dataflow_of(first).spec(product, arch, self.epilogue, output)


def works_of(function: func.FuncOp) -> Iterator[Work]:
    """What the kernels of a function compute, in order."""
    for kernel in [one for one in function.walk() if isinstance(one, KernelOp)]:
        ops = [one for one in kernel.body.block.ops if not isinstance(one, YieldOp)]
        if any(isinstance(op, RopeOp | AppendKVOp) for op in ops):
            yield Work(kernel)
            continue
        works = [work_of(op) for op in ops]
        inside = {op for work in works for op in (*work.products, work.norm) if op is not work.op}
        yield from (work for work in works if work.op not in inside)


def work_of(op: Operation) -> Work:
    """An operation, with products that nothing else reads where it is fused to their end, or with a
    norm of whole rows that nothing else reads where it rounds it to integers.
    """
    if isinstance(op, QuantizeOp) and isinstance(norm := op.input.owner, RmsNormOp):
        (length,) = check_rank("weight", norm.weight, 1)
        if length == op.result.type.cols and op.input.has_one_use():
            return Work(op, norm=norm)
    if isinstance(op, GluOp):
        gate, up = only_product(op.gate), only_product(op.up)
        if gate is not None and up is not None and are_alike(gate, up):
            return Work(op, (gate, up), Epilogue(op.activation.data))
    if isinstance(op, arith.AddfOp):
        for value in op.operands:
            product = only_product(value)
            if product is not None:
                return Work(op, (product,), Epilogue(residual=True))
    return Work(op, (op,)) if isinstance(op, ProductOp) else Work(op)


def only_product(value: SSAValue) -> ProductOp | None:
    """The product that makes a value, if that is used once and its kernel adds to results."""
    owner = value.owner
    if not isinstance(owner, ProductOp) or isinstance(owner, StreamLookupMatmulOp):
        return None
    return owner if value.has_one_use() else None


def are_alike(first: ProductOp, second: ProductOp) -> bool:
    """Whether two products are of one activation, and of weights of one format and shape."""
    same = first.operands[0] is second.operands[0] and first.weight.type == second.weight.type
    return same and type(first) is type(second) and first.bias is second.bias


def product_of(op: Operation, arch: str) -> Product:
    """The product that an operation of a kernel is; raises NybbleError for any other."""
    activations = ""
    if isinstance(op, StreamFloatProductOp):
        activations = op.precision.data
    elif isinstance(op, StreamLookupMatmulOp):
        activations = "f16"
    elif isinstance(op, StreamIntMatmulOp):
        activations = "i8"
    elif isinstance(op, StreamBitserialMatmulOp):
        activations = f"b{op.activation_type.number_format.element.bits}"
    return fixed_product(op, tuple(row.op for row in ROWS), "a GPU", activations, arch)


def located(error: NybbleError, op: Operation) -> NybbleError:
    """The error with the place of an operation, if it has none."""
    error.location = error.location or location_of(op)
    return error
