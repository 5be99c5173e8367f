"""The scorer that tells which tokens a cache should keep: a small network, learned beforehand."""

from xdsl.dialects import arith
from xdsl.dialects.builtin import StringAttr, TensorType, f32
from xdsl.ir import Block, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.ops import GluOp, RmsNormOp, RopeOp
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import MatmulOp
from nybble.dialects.shapes import tensor_shape

FORMAT = "f32"
"""Of the scorer's weights."""


def score_tokens(
    block: Block, projections: tuple[SSAValue, SSAValue, SSAValue], heads: int, hidden: int
) -> SSAValue:
    """Scores f32 [n, heads] of the tokens whose queries, keys and values a function has.

    That is silu([q, k, v] W1) W2 of what they were before norms and rotations (Locret,
    arXiv:2410.01805), with W1's columns for q, k and v, then W2, as new arguments of the function.
    silu(x) is written as the gate sigmoid(x) * x. Raises NybbleError where a rotation comes before
    one of the projections.
    """
    sources = [projected(one) for one in projections]
    total: SSAValue | None = None
    ops: list[Operation] = []
    for source in sources:
        weight = _weight(block, hidden, tensor_shape(source)[1])
        part = MatmulOp(source, weight, None, _rows(source, hidden))
        ops.append(part)
        if total is not None:
            ops.append(arith.AddfOp(total, part.result))
        total = ops[-1].results[0]
    assert total is not None
    gate = GluOp(
        operands=[total, total],
        result_types=[total.type],
        properties={"activation": StringAttr("sigmoid")},
    )
    scores = MatmulOp(gate.result, _weight(block, heads, hidden), None, _rows(total, heads))
    Rewriter.insert_op([*ops, gate, scores], _after(sources))
    return scores.result


def projected(value: SSAValue) -> SSAValue:
    """What a rotation and a norm of heads were made of, or the value itself."""
    for kind in (RopeOp, RmsNormOp):
        if isinstance(value.owner, kind):
            value = value.owner.input
    return value


def _after(sources: list[SSAValue]) -> InsertPoint:
    """Behind the last of the sources; nothing may have been rotated, in its place, by then."""
    owners = [one.owner for one in sources if isinstance(one.owner, Operation)]
    block = owners[0].parent if owners else None
    if block is None or len(owners) != len(sources):
        raise NybbleError("queries, keys or values are arguments, which nothing can be scored by")
    last = max(owners, key=lambda op: list(block.ops).index(op))
    for source in sources:
        for use in source.uses:
            early = use.operation.is_before_in_block(last)
            if early and isinstance(use.operation, RopeOp | RmsNormOp):
                raise NybbleError(
                    "a projection comes after a rotation of another", location=location_of(last)
                )
    return InsertPoint.after(last)


def _weight(block: Block, rows: int, columns: int) -> SSAValue:
    return block.insert_arg(LowBitTensorType.get((rows, columns), FORMAT), len(block.args))


def _rows(like: SSAValue, columns: int) -> TensorType:
    return TensorType(f32, (tensor_shape(like)[0], columns))
