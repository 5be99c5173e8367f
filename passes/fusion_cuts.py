"""Groups of operators that can be one kernel, and the cuts of a group that a cost model prefers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.dialects import arith
from xdsl.ir import Operation

from nybble.costmodel.kernels import CostModel
from nybble.dialects.fused.ops import (
    EmbedOp,
    GluOp,
    HadamardOp,
    LastRowOp,
    NllOp,
    RmsNormOp,
    RopeOp,
    SampleOp,
    SoftmaxOp,
)
from nybble.dialects.lowbit.ops import QuantizeOp
from nybble.dialects.mpgemm.lut import LutPrecomputeOp
from nybble.dialects.mpgemm.ops import ProductOp
from nybble.dialects.sparse_attn.ops import (
    AppendKVOp,
    AttentionOp,
    FinishOp,
    MergeOp,
    PartialOp,
)
from nybble.dialects.sparse_attn.pages import AppendBoundsOp, SelectPagesOp
from nybble.dialects.sparse_attn.retain import RetainOp

STANDALONE: dict[type[Operation], str] = {
    RmsNormOp: "norm",
    QuantizeOp: "quantize",
    AttentionOp: "attention",
    PartialOp: "attention_part",
    MergeOp: "attention_merge",
    FinishOp: "attention_finish",
    RetainOp: "attention_retained",
    AppendBoundsOp: "append_bounds",
    SelectPagesOp: "select_pages",
    GluOp: "glu",
    SoftmaxOp: "softmax",
    HadamardOp: "hadamard",
    EmbedOp: "embed",
    SampleOp: "sample",
    LastRowOp: "last_row",
    NllOp: "nll",
    LutPrecomputeOp: "tables",
}
FUSED: dict[tuple[str, ...], str] = {
    ("norm", "quantize"): "norm_quantize",
    ("quantize", "tables"): "quantize_tables",
    ("norm", "quantize", "tables"): "norm_quantize_tables",
    ("product", "add"): "product_add",
    ("product", "product", "glu"): "product_glu",
}
"""Kernels of single operators in a row -> the kernel that computes them together."""


@dataclass
class Group:
    """Operators that can be one kernel, in program order.

    reason: why they are, for people; empty where there was no choice.
    """

    ops: list[Operation] = field(default_factory=list[Operation])
    reason: str = ""

    @property
    def name(self) -> str:
        """The kernel's name."""
        name = name_of(self.ops)
        assert name is not None, "groups are made of operators that have a kernel"
        return name


def cut(group: Group, model: CostModel, margin: int) -> list[Group]:
    """A group, or the parts of it that are faster one by one by more than `margin` percent."""
    if len(group.ops) == 1:
        return [group]
    whole, cuts = score(group.ops, model), best_cut(group.ops, model)
    if whole is None or (cuts is not None and cuts.seconds * (100 + margin) < whole.seconds * 100):
        chosen, other = cuts, whole
    else:
        chosen, other = whole, cuts
    if chosen is None:
        return [group]
    reason = because(group.ops, chosen, other, model)
    return [Group(list(part), reason) for part in chosen.parts]


@dataclass(frozen=True)
class Cut:
    """Operators in consecutive kernels, and the seconds of all of them."""

    parts: tuple[tuple[Operation, ...], ...]
    seconds: float

    def __str__(self) -> str:
        names = " | ".join(name_of(part) or "" for part in self.parts)
        return f"{names} {self.seconds * 1e6:,.2f} us"


def score(ops: Sequence[Operation], model: CostModel) -> Cut | None:
    """All of the operators as one kernel; None where there is no such kernel or no room for it."""
    if name_of(ops) is None or model.overflow(ops) is not None:
        return None
    return Cut((tuple(ops),), model.predict(ops).seconds)


def best_cut(ops: Sequence[Operation], model: CostModel) -> Cut | None:
    """The fastest way to cut operators into two kernels or more; None if there is none.

    best[i] is that of the first i operators, whose last kernel begins at some j < i.
    """
    best: list[Cut | None] = [Cut((), 0.0)]
    for end in range(1, len(ops) + 1):
        starts = range(1, end) if end == len(ops) else range(end)
        found: list[Cut] = []
        for start in starts:
            before, last = best[start], score(ops[start:end], model)
            if before is not None and last is not None:
                found.append(Cut((*before.parts, *last.parts), before.seconds + last.seconds))
        best.append(min(found, key=lambda one: one.seconds, default=None))
    return best[-1]


def because(ops: Sequence[Operation], chosen: Cut, other: Cut | None, model: CostModel) -> str:
    """What was compared: the choice, what limits it, and what came next or was left out.

    Empty where there was nothing to compare.
    """
    first = model.predict(chosen.parts[0])
    limits = ", ".join(model.predict(part).limit for part in chosen.parts)
    said = [f"{first.source}: {chosen} ({limits})"]
    overflow = model.overflow(ops)
    if overflow is None and other is None:
        return ""
    if overflow is not None:
        said.append(f"no {name_of(ops)}: {overflow}")
    elif other is not None:
        said.append(f"next {other}")
    return "; ".join(said)


def name_of(ops: Sequence[Operation]) -> str | None:
    """The kernel that computes operators of one group in a row; None if there is none."""
    if any(isinstance(op, RopeOp | AppendKVOp) for op in ops):
        appends = any(isinstance(op, AppendKVOp) for op in ops)
        kind = "rope_append" if appends else "rope"
        return kind if _is_whole_rope(ops) else None
    singles = tuple(single_name(op) for op in ops)
    alike = len(set(singles)) == 1 and (len(ops) == 1 or singles[0] == "product")
    return singles[0] if alike else FUSED.get(singles)


def single_name(op: Operation) -> str:
    """The kernel of one operator."""
    if isinstance(op, ProductOp):
        return "product"
    return "add" if isinstance(op, arith.AddfOp) else STANDALONE[type(op)]


def _is_whole_rope(ops: Sequence[Operation]) -> bool:
    """Whether nothing of a rotation and its appends is left in the block beside these."""
    block = ops[0].parent
    assert block is not None
    return {op for op in block.ops if rotates(op)} <= {*ops}


def rotates(op: Operation) -> bool:
    """Whether an operator is part of a rotation and the appends that go with it."""
    return isinstance(op, RopeOp | AppendKVOp) or _feeds_only(op, RopeOp) or _turns_heads(op)


def _turns_heads(op: Operation) -> bool:
    """Whether an operator transforms heads between a rotation and an append beside it."""
    if not isinstance(op, HadamardOp) or not isinstance(op.input.owner, RopeOp):
        return False
    block = op.parent
    return block is not None and any(isinstance(one, AppendKVOp) for one in block.ops)


def _feeds_only(op: Operation, consumer: type[Operation]) -> bool:
    """Whether a norm's result is read by rotary embeddings alone."""
    if not isinstance(op, RmsNormOp):
        return False
    uses = list(op.result.uses)
    return bool(uses) and all(isinstance(use.operation, consumer) for use in uses)
