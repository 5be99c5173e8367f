"""One small function per torch op that `raise-torch-to-operators` knows, and the table of them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import (
    Float32Type,
    FloatAttr,
    StringAttr,
    TensorType,
    UnitAttr,
)
from xdsl.ir import Attribute, Operation, SSAValue

from nybble.dialects.fused.ops import EmbedOp, GluOp, RmsNormOp, RopeOp
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import MatmulOp
from nybble.dialects.sparse_attn.mask_attr import MaskAttr
from nybble.dialects.sparse_attn.masks import Causal, Window
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp
from nybble.passes.raise_values import (
    Gate,
    Layout,
    Raised,
    constant,
    integer,
    number,
    refuse,
    text,
    torch_name,
    torch_tensor,
)


@dataclass
class Raiser:
    """The state of raising one function: where ops go, and what each torch value became."""

    builder: Builder
    values: dict[SSAValue, Raised | Gate] = field(default_factory=dict[SSAValue, "Raised | Gate"])

    def get(self, op: Operation, index: int) -> Raised:
        """What operand `index` of a torch op became."""
        found = self.values.get(op.operands[index])
        if isinstance(found, Gate):
            refuse(found.op, "is known only as a factor of a product, as in `act(gate) * up`")
        if found is None:
            refuse(op, f"needs a tensor as operand {index}")
        return found

    def value(self, op: Operation, index: int, *layouts: Layout) -> SSAValue:
        """The operand as a value, which must have one of the given logical shapes."""
        found = self.get(op, index)
        if found.layout not in layouts:
            wanted = " or ".join(layout.value for layout in layouts)
            refuse(op, f"has operand {index} of logical shape {found.layout.value}", wanted)
        return found.value

    def emit(self, source: Operation, op: Operation, layout: Layout) -> None:
        """Insert `op`, whose result stands for that of `source`; VerifyException if invalid."""
        op.verify()
        self.builder.insert(op)
        result = source.results[0]
        op.results[0].name_hint = result.name_hint
        self.values[result] = Raised(op.results[0], layout)

    def forward(self, source: Operation, found: Raised) -> None:
        """Let the result of `source` be an existing value."""
        self.values[source.results[0]] = found


Handler = Callable[[Raiser, Operation], None]


def rows_type(value: SSAValue, features: int) -> TensorType[Float32Type]:
    """tensor<tokens x features x f32> with the tokens of a 2-D value or of 1-D ids."""
    assert isinstance(value.type, TensorType)
    return TensorType(Float32Type(), [value.type.get_shape()[0], features])


def f32(value: float) -> FloatAttr[Float32Type]:
    """A float as an f32 attribute."""
    return FloatAttr(value, Float32Type())


def weight_type(op: Operation, index: int) -> LowBitTensorType:
    """The type of a stored weight, from the operands (fmt, n, k) that begin at `index`."""
    shape = (integer(op, index + 1), integer(op, index + 2))
    return LowBitTensorType.get(shape, text(op, index))


def _ignore(raiser: Raiser, op: Operation) -> None:
    """Constants, sizes and lists: read where they are used."""


def _same(raiser: Raiser, op: Operation) -> None:
    source, result = (torch_tensor(value.type) for value in (op.operands[0], op.results[0]))
    if source != result:
        refuse(op, f"changes {op.operands[0].type} to {op.results[0].type}")
    raiser.forward(op, raiser.get(op, 0))


def _view(raiser: Raiser, op: Operation) -> None:
    value = raiser.value(op, 0, Layout.ROWS, Layout.HEADS)
    result = torch_tensor(op.results[0].type)
    before = torch_tensor(op.operands[0].type)
    if result is None or before is None or result.dims[:2] != before.dims[:2]:
        refuse(op, f"gives {op.results[0].type}", "a view that splits or joins heads")
    layout = {3: Layout.ROWS, 4: Layout.HEADS}.get(len(result.dims))
    if layout is None:
        refuse(op, f"gives {op.results[0].type}", "a view that splits or joins heads")
    raiser.forward(op, Raised(value, layout))


def _transpose(raiser: Raiser, op: Operation) -> None:
    found = raiser.get(op, 0)
    swap = {Layout.HEADS: Layout.SWAPPED, Layout.SWAPPED: Layout.HEADS}
    axes = {integer(op, 1) % 4, integer(op, 2) % 4}
    if found.layout not in swap or axes != {1, 2}:
        refuse(op, "is known only between tokens and heads, dimensions 1 and 2 of 4")
    raiser.forward(op, Raised(found.value, swap[found.layout]))


def _add(raiser: Raiser, op: Operation) -> None:
    left, right = raiser.get(op, 0), raiser.get(op, 1)
    if left.layout is not right.layout or left.value.type != right.value.type:
        refuse(op, f"adds {op.operands[0].type} and {op.operands[1].type}", "equal shapes")
    if number(op, 2) != 1:
        refuse(op, f"has the factor {number(op, 2)}", "alpha = 1")
    raiser.emit(op, arith.AddfOp(left.value, right.value), left.layout)


def _silu(raiser: Raiser, op: Operation) -> None:
    raiser.values[op.results[0]] = Gate(raiser.get(op, 0), "silu", op)


def _gelu(raiser: Raiser, op: Operation) -> None:
    if text(op, 1) != "tanh":
        refuse(op, f"has the approximation '{text(op, 1)}'", "'tanh'")
    raiser.values[op.results[0]] = Gate(raiser.get(op, 0), "gelu_tanh", op)


def _multiply(raiser: Raiser, op: Operation) -> None:
    factors = [raiser.values.get(operand) for operand in op.operands[:2]]
    gate = next((factor for factor in factors if isinstance(factor, Gate)), None)
    if gate is None:
        refuse(op, "is known only as a gated product, `silu(gate) * up`")
    up = raiser.get(op, 1 if factors[0] is gate else 0)
    if up.layout is not gate.source.layout or up.value.type != gate.source.value.type:
        refuse(op, f"multiplies {op.operands[0].type} and {op.operands[1].type}", "equal shapes")
    product = GluOp(
        operands=[gate.source.value, up.value],
        result_types=[up.value.type],
        properties={"activation": StringAttr(gate.activation)},
    )
    raiser.emit(op, product, up.layout)


def _linear(raiser: Raiser, op: Operation) -> None:
    activation = raiser.value(op, 0, Layout.ROWS)
    weight = raiser.value(op, 1, Layout.PLAIN)
    bias = raiser.value(op, 2, Layout.PLAIN) if _given(op, 2) else None
    result = rows_type(activation, integer(op, 4))
    raiser.emit(op, MatmulOp(activation, weight, bias, result), Layout.ROWS)


def _given(op: Operation, index: int) -> bool:
    """Whether an optional tensor operand is there."""
    return torch_tensor(op.operands[index].type) is not None


def _rms_norm(raiser: Raiser, op: Operation) -> None:
    found = raiser.get(op, 0)
    properties: dict[str, Attribute] = {"eps": f32(number(op, 2))}
    if constant(op, 3):
        properties["unit_offset"] = UnitAttr()
    norm = RmsNormOp(
        operands=[found.value, raiser.value(op, 1, Layout.PLAIN)],
        result_types=[found.value.type],
        properties=properties,
    )
    raiser.emit(op, norm, found.layout)


def _rope(raiser: Raiser, op: Operation) -> None:
    value = raiser.value(op, 0, Layout.SWAPPED)
    rest = [raiser.value(op, index, Layout.PLAIN) for index in (1, 2, 3)]
    rotated = RopeOp(operands=[value, *rest], result_types=[value.type])
    raiser.emit(op, rotated, Layout.SWAPPED)


def _append_kv(raiser: Raiser, op: Operation) -> None:
    cache, pos = (raiser.value(op, index, Layout.PLAIN) for index in (0, 2))
    rows = raiser.value(op, 1, Layout.SWAPPED)
    raiser.emit(
        op, AppendKVOp(operands=[cache, rows, pos], result_types=[cache.type]), Layout.PLAIN
    )


def _attention(raiser: Raiser, op: Operation) -> None:
    query = raiser.value(op, 0, Layout.SWAPPED)
    rest = [raiser.value(op, index, Layout.PLAIN) for index in (1, 2, 3)]
    mask = Causal() if constant(op, 5) is None else Window(integer(op, 5))
    properties: dict[str, Attribute] = {"mask": MaskAttr.of(mask), "scale": f32(number(op, 4))}
    if constant(op, 6) is not None:
        properties["softcap"] = f32(number(op, 6))
    attention = AttentionOp(
        operands=[query, *rest, []], result_types=[query.type], properties=properties
    )
    raiser.emit(op, attention, Layout.HEADS)


def _embed(raiser: Raiser, op: Operation) -> None:
    ids = raiser.value(op, 0, Layout.ROWS)
    embedded = EmbedOp(
        operands=[ids, raiser.value(op, 1, Layout.PLAIN)],
        result_types=[rows_type(ids, integer(op, 4))],
        properties={"scale": f32(number(op, 5))},
    )
    raiser.emit(op, embedded, Layout.ROWS)


HANDLERS: dict[str, tuple[int, Handler]] = {
    "aten.add.Tensor": (3, _add),
    "aten.clone": (1, _same),
    "aten.contiguous": (1, _same),
    "aten.gelu": (2, _gelu),
    "aten.mul.Tensor": (2, _multiply),
    "aten.reshape": (1, _view),
    "aten.silu": (1, _silu),
    "aten.size.int": (2, _ignore),
    "aten.to.dtype": (1, _same),
    "aten.transpose.int": (3, _transpose),
    "aten.view": (1, _view),
    "constant.bool": (0, _ignore),
    "constant.float": (0, _ignore),
    "constant.int": (0, _ignore),
    "constant.none": (0, _ignore),
    "constant.str": (0, _ignore),
    "nybble.append_kv": (3, _append_kv),
    "nybble.attention": (7, _attention),
    "nybble.embed": (6, _embed),
    "nybble.linear": (6, _linear),
    "nybble.rms_norm": (4, _rms_norm),
    "nybble.rope": (4, _rope),
    "prim.ListConstruct": (0, _ignore),
}
"""Torch ops: how many operands the handler reads, all of which must be there, and the handler."""

WEIGHT_OPERANDS: dict[str, tuple[int, int]] = {"nybble.linear": (1, 3), "nybble.embed": (1, 2)}
"""Ops that read a stored weight: the index of its operand and that of its format."""


def find_handler(op: Operation) -> Handler:
    """The handler of an op; RaiseError if there is none or the op has too few operands."""
    found = HANDLERS.get(torch_name(op))
    if found is None:
        listed = (name for name in HANDLERS if not name.startswith(("constant.", "prim.")))
        refuse(op, "has no counterpart among nybble's operators", ", ".join(listed))
    count, handler = found
    if len(op.operands) < count or len(op.results) != 1:
        refuse(op, f"has {len(op.operands)} operands", f"at least {count}, and one result")
    return handler
