"""What of a kernel decides its time, apart from its schedule: a family and some numbers.

There are two ways to the same facts: `facts_of` reads them from a kernel's IR, `ProductSketch` and
its like say them without any IR, so that thousands of candidates need none. A test holds the two
equal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xdsl.dialects import arith
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation, SSAValue

from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.fused.ops import GluOp, HadamardOp, RmsNormOp
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import Format
from nybble.dialects.lowbit.formats.affine import affine
from nybble.dialects.lowbit.ops import QuantizeOp
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.lut import LookupProductOp
from nybble.dialects.mpgemm.ops import ProductOp, QuantizedProductOp
from nybble.dialects.mpgemm.tables import TableType
from nybble.dialects.sparse_attn.cache_type import cache_shape, format_of
from nybble.dialects.sparse_attn.ops import AttentionOp

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Facts:
    """family: dataflow of a product, or the name of another fusion. problem: what is computed,
    whatever computes it; measurements are split by it. numbers: by name; absent is 0."""

    family: str
    problem: str
    numbers: Numbers = field(hash=False)


class UnknownKernelError(NybbleError):
    """A kernel that the model has no features of."""


@dataclass(frozen=True)
class ProductSketch:
    """A product without IR.

    rows: of each weight. digits: 8-bit digits of an activation (0 for floats) or of a table's
    entry. group: columns that share an activation's scale. exact, symmetric: of tables.
    """

    dataflow: str
    format: str
    rows: tuple[int, ...]
    cols: int
    digits: int = 0
    group: int = 1
    bias: bool = False
    residual: bool = False
    glu: bool = False
    exact: bool = False
    symmetric: bool = False

    def facts(self) -> Facts:
        """The facts of a kernel of it."""
        form = formats.get(self.format)
        shape = "+".join(map(str, self.rows))
        numbers = {
            "rows": float(sum(self.rows)),
            "parts": float(len(self.rows)),
            "cols": float(self.cols),
            "digits": float(self.digits),
            "activation_group": float(self.group),
            "bias": float(self.bias),
            "residual": float(self.residual),
            "glu": float(self.glu),
            "exact": float(self.exact),
            "symmetric": float(self.symmetric),
            **weight_numbers(form, self.cols),
        }
        beside = "".join(f" {name}" for name in ("bias", "residual", "glu") if numbers[name])
        return Facts(self.dataflow, f"{form.spec} {shape}x{self.cols}{beside}", numbers)


def weight_numbers(form: Format, cols: int) -> dict[str, float]:
    """What of a number format decides how fast it is read and decoded."""
    line = affine(form.element)
    return {
        "bits": float(form.element.bits),
        "bits_per_weight": float(form.bits_per_weight),
        "weight_group": float(form.group_size(cols)),
        "on_a_line": float(line is not None),
        "super_group": float(form.grouping.count),
        "has_zero": float(form.zero is not None),
    }


def _product(kernel: KernelOp, ops: Sequence[Operation]) -> Facts:
    products = [op for op in ops if isinstance(op, ProductOp)]
    first = products[0]
    weights = [_low_bit(op.weight) for op in products]
    return ProductSketch(
        dataflow=first.DATAFLOW,
        format=weights[0].format.data,
        rows=tuple(weight.rows for weight in weights),
        cols=weights[0].cols,
        bias=first.bias is not None,
        residual=any(isinstance(op, arith.AddfOp) for op in ops),
        glu=any(isinstance(op, GluOp) for op in ops),
        **_activation(first),
    ).facts()


def _activation(op: ProductOp) -> dict[str, Any]:
    """The fields of a ProductSketch that the activation decides."""
    type_ = op.operands[0].type
    if isinstance(op, LookupProductOp) and isinstance(type_, TableType):
        group = type_.number_format.group_size(type_.cols)
        digits = 2 if type_.exact else 1
        return {
            "digits": digits,
            "group": group,
            "exact": type_.exact,
            "symmetric": type_.symmetric,
        }
    if isinstance(op, QuantizedProductOp) and isinstance(type_, LowBitTensorType):
        form = type_.number_format
        return {"digits": -(-form.element.bits // 8), "group": form.group_size(type_.cols)}
    return {"digits": 0, "group": 1}


def _low_bit(value: SSAValue) -> LowBitTensorType:
    assert isinstance(value.type, LowBitTensorType)
    return value.type


@dataclass(frozen=True)
class AttentionSketch:
    """Attention without IR: heads of queries and keys, their length, and bytes of an element."""

    heads: int
    kv_heads: int
    dim: int
    bytes: float
    span: int | None = None

    def facts(self) -> Facts:
        """The facts of a kernel of it."""
        numbers = {
            "rows": float(self.heads * self.dim),
            "heads": float(self.heads),
            "kv_heads": float(self.kv_heads),
            "cols": float(self.dim),
            "bytes": float(self.bytes),
            "span": float(self.span or 0),
        }
        shape = f"{self.heads}/{self.kv_heads}x{self.dim}x{self.bytes:g}"
        return Facts("attention", f"attention {shape} {self.span or 'all'}", numbers)


def _attention(kernel: KernelOp, ops: Sequence[Operation]) -> Facts:
    (op,) = [one for one in ops if isinstance(one, AttentionOp)]
    kv_heads, _, dim = cache_shape(op.keys)
    size = format_of(op.keys.type).bits / 8
    return AttentionSketch(_columns(op.query) // dim, kv_heads, dim, size, op.span).facts()


@dataclass(frozen=True)
class RowSketch:
    """A kernel that works row by row without IR.

    name: of the fusion. cols: of a row. width: what a norm runs over. digits, group: of what is
    quantized, 0 for nothing.
    """

    name: str
    cols: int
    width: int = 0
    digits: int = 0
    group: int = 0

    def facts(self) -> Facts:
        """The facts of a kernel of it."""
        numbers = {
            "cols": float(self.cols),
            "width": float(self.width),
            "digits": float(self.digits),
            "activation_group": float(self.group),
            "reads": 2.0 if self.name in ("glu", "add") else 1.0,
            "special": float(self.name == "glu"),
        }
        problem = f"{self.name} {self.cols} {self.width} {self.digits} {self.group}"
        return Facts(self.name, problem, numbers)


def _row_kernel(kernel: KernelOp, ops: Sequence[Operation]) -> Facts:
    norms = [op for op in ops if isinstance(op, RmsNormOp)]
    quantized = [op for op in ops if isinstance(op, QuantizeOp)]
    digits = group = 0
    if quantized:
        type_ = quantized[0].result.type
        form = type_.number_format
        digits, group = -(-form.element.bits // 8), form.group_size(type_.cols)
    width = _columns(norms[0].weight) if norms else 0
    return RowSketch(
        kernel.kernel_name.data, _columns(kernel.inputs[0]), width, digits, group
    ).facts()


def _columns(value: SSAValue) -> int:
    if isinstance(value.type, LowBitTensorType):
        return value.type.cols
    assert isinstance(value.type, TensorType)
    return value.type.get_shape()[-1]


Rule = Callable[[KernelOp, Sequence[Operation]], Facts]
_ROWS = (RmsNormOp, QuantizeOp, GluOp, HadamardOp, arith.AddfOp)


def facts_of(kernel: KernelOp) -> Facts:
    """The facts of a kernel; raises UnknownKernelError for a fusion without features."""
    ops = [*kernel.body.block.ops]
    if any(isinstance(op, ProductOp) and op.DATAFLOW for op in ops):
        return _product(kernel, ops)
    if any(isinstance(op, AttentionOp) for op in ops):
        return _attention(kernel, ops)
    if any(isinstance(op, _ROWS) for op in ops):
        return _row_kernel(kernel, ops)
    raise UnknownKernelError(
        f'no features of kernel "{kernel.kernel_name.data}"',
        accepted="products, attention, norms, quantization, gates, sums",
    )
