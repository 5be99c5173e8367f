"""Values of a function at the scheduled stage, seen through its kernels, and how they are kept."""

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.dialects import arith, func
from xdsl.dialects.builtin import DYNAMIC_INDEX, TensorType
from xdsl.ir import Attribute, BlockArgument, OpResult, SSAValue, Use

from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.fused.ops import GluOp, LastRowOp
from nybble.dialects.lowbit.ops import QuantizeOp
from nybble.dialects.mpgemm.lut import LutPrecomputeOp
from nybble.dialects.mpgemm.stream import StreamFloatProductOp
from nybble.dialects.sparse_attn.cache_type import CacheType
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp, PartialOp

FULL, HALF = "f32", "f16"
BRAIN = "bf16"


def half_of(cache: Attribute) -> str:
    """The type of queries, results and products of an attention over a cache."""
    return BRAIN if isinstance(cache, CacheType) and cache.spec.data == BRAIN else HALF


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


def holder(value: SSAValue) -> SSAValue:
    """The value whose buffer holds a value: a cache is written in place, one row is its last."""
    while True:
        value = origin(value)
        if isinstance(value.owner, AppendKVOp):
            value = value.owner.cache
        elif isinstance(value.owner, LastRowOp) and shape_of(value.owner.input)[0] == 1:
            value = value.owner.input
        else:
            return value


def uses_of(value: SSAValue) -> Iterator[Use]:
    """Where a value is read: by operations in kernels, or by the function's end."""
    for use in value.uses:
        op = use.operation
        if isinstance(op, KernelOp):
            yield from uses_of(op.body.block.args[use.index])
        elif isinstance(op, YieldOp):
            kernel = op.parent_op()
            assert isinstance(kernel, KernelOp)
            yield from uses_of(kernel.outputs[use.index])
        else:
            yield use


def shape_of(value: SSAValue) -> tuple[int, ...]:
    """The shape of a tensor; raises NybbleError for a number of tokens that is not known."""
    assert isinstance(value.type, TensorType)
    shape = value.type.get_shape()
    if DYNAMIC_INDEX in shape:
        raise NybbleError(
            "an operation on a number of tokens that is not known", accepted="a known number"
        )
    return shape


@dataclass(frozen=True)
class Storage:
    """What values are kept as between kernels: what their readers take.

    returned: what a function's results are kept as; empty for what their maker gives.
    """

    returned: str = ""

    def of(self, value: SSAValue) -> str:
        """ "f32", or the type of 16 bits that all readers take; "f32" where they differ."""
        source = origin(value)
        if isinstance(source.owner, AttentionOp):
            return half_of(source.owner.keys.type)
        wanted = {self._read_as(use) for use in uses_of(source)} - {""}
        if not wanted:
            return _made_as(source)
        return wanted.pop() if len(wanted) == 1 else FULL

    def require(self, value: SSAValue, wanted: str) -> None:
        """Raise NybbleError unless a value is kept as a kernel reads it."""
        kept = self.of(value)
        if kept != wanted:
            raise NybbleError(
                f"a value that is kept as {kept} where a kernel of a GPU reads {wanted}",
                accepted=f"a value that is read as {wanted} alone",
            )

    def _read_as(self, use: Use) -> str:
        """What a use takes, empty for any type."""
        op = use.operation
        if isinstance(op, StreamFloatProductOp):
            return op.precision.data
        if isinstance(op, AttentionOp | PartialOp):
            return half_of(op.keys.type)
        if isinstance(op, func.ReturnOp):
            return self.returned
        if isinstance(op, arith.AddfOp):
            return self.of(op.result)
        return "" if isinstance(op, QuantizeOp | LutPrecomputeOp) else FULL


def _made_as(source: SSAValue) -> str:
    """What the maker of a value gives if nobody asks: a product of floats the type of these."""
    owner = source.owner
    if isinstance(owner, StreamFloatProductOp):
        return owner.precision.data
    if isinstance(owner, arith.AddfOp | GluOp):
        makers = [_made_as(origin(one)) for one in owner.operands]
        return next((one for one in makers if one != FULL), FULL)
    return FULL
