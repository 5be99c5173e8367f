"""Bindings of matrix products and what is fused around them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from xdsl.dialects import arith
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from nybble.backends.cpu.bindings.site import Binding, In, Out, Scratch, Site
from nybble.backends.cpu.bindings.tables import PARTS as TABLE_PARTS
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.builder import BufferSpec
from nybble.backends.cpu.kernels.matmul.bitserial import BitserialSpec
from nybble.backends.cpu.kernels.matmul.bitserial_lower import bitserial_buffers, lower_bitserial
from nybble.backends.cpu.kernels.matmul.lower import lower_matmul, matmul_buffers, space_of
from nybble.backends.cpu.kernels.matmul.lut import lower_lut
from nybble.backends.cpu.kernels.matmul.lut_spec import LutSpec
from nybble.backends.cpu.kernels.matmul.space import LUT, lookup_tiles
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec
from nybble.backends.cpu.lut_packing import Order
from nybble.backends.cpu.lut_weights import lut_codes
from nybble.backends.cpu.plane_weights import planes_of
from nybble.backends.cpu.schedule_space import Bound, Choices, Options
from nybble.backends.cpu.weights import added_of, digits_of, weight_kind
from nybble.dialects.fused.ops import GluOp
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.lut import LookupProductOp
from nybble.dialects.mpgemm.ops import BitserialMatmulOp, DequantMatmulOp, IntMatmulOp, ProductOp
from nybble.dialects.mpgemm.tables import TableType

QUANTIZED_PARTS = ("q", "s", "z")
ORDERS: dict[str, Order] = {"lut1": "lut1", "lut4": "lut4"}
"""Layouts of weights that are looked up."""


@dataclass(frozen=True)
class Matmul:
    """A matmul specification as a kernel."""

    spec: MatmulSpec
    options: Options = field(default_factory=dict[str, int])

    @property
    def space(self) -> Choices:
        """What a schedule may choose."""
        return Bound(space_of(self.spec), self.spec)

    @property
    def buffers(self) -> list[BufferSpec]:
        """See `MatmulSpec`."""
        return matmul_buffers(self.spec, self.options)

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        return lower_matmul(self.spec, name, self.options)


@dataclass(frozen=True)
class LutMatmul:
    """A matmul by lookup tables as a kernel."""

    spec: LutSpec
    options: Options = field(default_factory=dict[str, int])

    @property
    def space(self) -> Choices:
        """What a schedule may choose."""
        return Bound(LUT, self.spec)

    @property
    def buffers(self) -> list[BufferSpec]:
        """See `LutSpec`."""
        return self.spec.buffers()

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        return lower_lut(self.spec, name, lookup_tiles(LUT.settle(self.spec, self.options)))


@dataclass(frozen=True)
class BitserialMatmul:
    """A matmul by popcounts as a kernel."""

    spec: BitserialSpec

    @property
    def buffers(self) -> list[BufferSpec]:
        """See `BitserialSpec`."""
        return bitserial_buffers(self.spec)

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        return lower_bitserial(self.spec, name)


def bind_product(site: Site) -> Binding:
    """Products of one activation: their results, with a residual sum, or gated."""
    products = site.all(ProductOp)
    if not products or len({op.operands[0] for op in products}) != 1:
        raise site.error("must hold products of one activation")
    kernel = product_kernel(site, products)
    slots = {f"w{i}": In(site.place(op.weight)) for i, op in enumerate(products)}
    slots |= {
        f"b{i}": In(site.place(op.bias)) for i, op in enumerate(products) if op.bias is not None
    }
    activation = site.place(products[0].operands[0])
    names = TABLE_PARTS if isinstance(kernel, LutMatmul) else QUANTIZED_PARTS
    slots |= {"x": In(activation)}
    slots |= {name: In(activation, part) for part, name in enumerate(names)}
    in_place: dict[int, int] = {}
    if kernel.spec.residual:
        residual = residual_operand(site, products[0])
        in_place = {0: site.place(residual)}
    results = [op.results[0] for op in final_ops(site, products)]
    slots |= {f"y{i}": Out(site.result(value)) for i, value in enumerate(results)}
    return Binding(
        kernel, tuple(slots.get(spec.name, Scratch()) for spec in kernel.buffers), in_place
    )


def activation_kind(product: ProductOp) -> Literal["a8", "bf16", "f32"]:
    """What a product makes of its activation."""
    if isinstance(product, IntMatmulOp):
        return "a8"
    return "bf16" if isinstance(product, DequantMatmulOp) and product.rounds else "f32"


def activation_digits(product: ProductOp) -> int:
    """How many 8-bit digits a product's activations have; 1 for floats."""
    type_ = product.operands[0].type
    return digits_of(type_.number_format) if isinstance(type_, LowBitTensorType) else 1


def activation_group(product: ProductOp) -> int:
    """How many columns of a product's activations share a scale; 1 for floats."""
    type_ = product.operands[0].type
    if not isinstance(type_, LowBitTensorType):
        return 1
    return type_.number_format.group_size(type_.cols)


def weight_type(product: ProductOp) -> LowBitTensorType:
    """The type of a product's weight."""
    type_ = product.weight.type
    assert isinstance(type_, LowBitTensorType)
    return type_


def product_kernel(
    site: Site, products: Sequence[ProductOp]
) -> Matmul | LutMatmul | BitserialMatmul:
    """The kernel of a region of products."""
    check_alike(site, products)
    if isinstance(products[0], BitserialMatmulOp):
        return BitserialMatmul(bitserial_spec(site, products))
    if isinstance(products[0], LookupProductOp):
        return LutMatmul(lut_spec(site, products), site.options)
    return Matmul(product_spec(site, products), site.options)


def check_alike(site: Site, products: Sequence[ProductOp]) -> None:
    """Raise BindingError for products that no one kernel computes."""
    biases = {op.bias is not None for op in products}
    if len(biases) != 1 or len({weight_type(op).format for op in products}) != 1:
        raise site.error("must give all of its products a bias and one format, or none")


class Frame(TypedDict):
    """What every specification of a product takes from its region; see ProductSpec."""

    rows: tuple[int, ...]
    cols: int
    tokens: int
    bias: bool
    residual: bool
    glu: str
    threads: int
    isa: Isa


def frame(site: Site, products: Sequence[ProductOp]) -> Frame:
    """The parts of a region of products, and what is done with their sums."""
    gates = site.all(GluOp)
    return Frame(
        rows=tuple(weight_type(op).rows for op in products),
        cols=weight_type(products[0]).cols,
        tokens=site.tokens,
        bias=products[0].bias is not None,
        residual=bool(site.all(arith.AddfOp)),
        glu=gates[0].activation.data if gates else "",
        threads=site.threads,
        isa=site.isa,
    )


def lut_spec(site: Site, products: Sequence[ProductOp]) -> LutSpec:
    """The matmul that a region of products by tables asks for."""
    weight, tables = weight_type(products[0]), products[0].operands[0].type
    order = ORDERS.get(weight.layout.data)
    assert isinstance(tables, TableType)
    if order is None:
        raise site.error("must look up weights in one of the layouts " + ", ".join(ORDERS))
    return LutSpec(
        weight=lut_codes(weight.number_format, weight.cols),
        activation_group=tables.number_format.group,
        order=order,
        exact=tables.exact,
        symmetric=tables.symmetric,
        **frame(site, products),
    )


def bitserial_spec(site: Site, products: Sequence[ProductOp]) -> BitserialSpec:
    """The matmul that a region of products by popcounts asks for."""
    weight, activation = weight_type(products[0]), products[0].operands[0].type
    assert isinstance(activation, LowBitTensorType)
    return BitserialSpec(
        weight=planes_of(weight.number_format, weight.cols),
        bits=activation.number_format.element.bits,
        **frame(site, products),
    )


def product_spec(site: Site, products: Sequence[ProductOp]) -> MatmulSpec:
    """The matmul that a region of products asks for."""
    weight = weight_type(products[0])
    return MatmulSpec(
        weight=weight_kind(weight.number_format, weight.cols),
        added=added_of(weight.number_format, weight.cols),
        activations=activation_kind(products[0]),
        activation_group=activation_group(products[0]),
        digits=activation_digits(products[0]),
        **frame(site, products),
    )


def final_ops(site: Site, products: Sequence[ProductOp]) -> Sequence[Operation]:
    """The operations whose results leave the region."""
    return site.all(GluOp) or site.all(arith.AddfOp) or products


def residual_operand(site: Site, product: ProductOp) -> SSAValue:
    """The operand of the residual sum that is not the product."""
    add = site.only(arith.AddfOp)
    return next(value for value in add.operands if value.owner is not product)
