"""What processes on rows and of attention take: rules of what their templates unroll."""

from collections.abc import Callable, Mapping
from math import ceil, log2
from typing import Any

from xdsl.dialects import arith, math
from xdsl.ir import Operation

from nybble.backends.fpga.amounts import (
    FLOAT_ADD,
    FLOAT_COMPARE,
    FLOAT_DIVIDE,
    FLOAT_MULTIPLY,
    FLOAT_SQRT,
    Amounts,
    add,
    memory,
)
from nybble.costmodel.targets.target import RESOURCES
from nybble.dialects.fpga.attention import AccumulateOp, ScoresOp, WeighOp
from nybble.dialects.fpga.caches import AppendCacheOp, HeadsOp, ReadAtOp, ReadCacheOp
from nybble.dialects.fpga.folding import RING
from nybble.dialects.fpga.processes import ProcessOp
from nybble.dialects.fpga.rows import FoldOp, ForkOp, MapOp, RegroupOp, SwapOp, stream_type

LOOP = {"lut": 100, "ff": 60}
"""Counters and control of a process."""
ROUNDING = {"lut": 90, "ff": 40}
"""f32 to f16."""


def total(*parts: tuple[Amounts, float]) -> dict[str, float]:
    """Amounts, each so many times."""
    found = dict.fromkeys(RESOURCES, 0.0)
    for amounts, times in parts:
        add(found, amounts, times)
    return found


EXP = total(
    (FLOAT_MULTIPLY, 6), (FLOAT_ADD, 5), (FLOAT_COMPARE, 3), ({"lut": 32 + 250, "ff": 200}, 1)
)
"""`table_exp.exp`: its products and sums, the table in LUTs, and a float to an integer."""
SCALARS: Mapping[type[Operation], Amounts] = {
    arith.ConstantOp: {},
    arith.AddfOp: FLOAT_ADD,
    arith.SubfOp: FLOAT_ADD,
    arith.MulfOp: FLOAT_MULTIPLY,
    arith.DivfOp: FLOAT_DIVIDE,
    arith.NegfOp: {},
    math.SqrtOp: FLOAT_SQRT,
    math.ExpOp: EXP,
}
"""Operation of a map -> what one lane of it takes."""


def _fork(op: ForkOp) -> Amounts:
    return total((LOOP, 1), ({"ff": stream_type(op.input).word_bits}, 1))


def _map(op: MapOp) -> Amounts:
    type_ = stream_type(op.result)
    lanes = type_.lanes.data
    parts = [(SCALARS[type(step)], lanes) for step in op.steps]
    held = sum(stream_type(one).word_bits for one in op.inputs)
    return total((LOOP, 1), ({"ff": held + type_.word_bits}, 1), *parts)


def folding(joins: Amounts, lanes: int) -> dict[str, float]:
    """A fold of that many lanes into one: a tree of a word, a ring, and a tree of the ring."""
    return total((joins, lanes - 1 + 1 + RING - 1), ({"lut": 40, "ff": 32 * RING}, 1))


def _fold(op: FoldOp) -> Amounts:
    joins = FLOAT_COMPARE if op.kind.data == "max" else FLOAT_ADD
    return total((LOOP, 1), (folding(joins, stream_type(op.input).lanes.data), 1))


def _swap(op: SwapOp) -> Amounts:
    return total((LOOP, 1), (memory(op.half, stream_type(op.input).word_bits), 1))


def _regroup(op: RegroupOp) -> Amounts:
    lanes = stream_type(op.input).lanes.data + stream_type(op.result).lanes.data
    choosing = 32 * lanes * ceil(log2(lanes)) / 2
    return total((LOOP, 1), ({"lut": choosing, "ff": 32 * lanes}, 1))


def _read_at(op: ReadAtOp) -> Amounts:
    return total((LOOP, 1), ({"ff": stream_type(op.stream).word_bits}, 1))


def _append_cache(op: AppendCacheOp) -> Amounts:
    return total((LOOP, 1), (ROUNDING, op.heads.lanes.data))


def _read_cache(op: ReadCacheOp) -> Amounts:
    rounding = ROUNDING if op.rows is not None and op.bits == 16 else {}
    lanes = op.heads.lanes.data
    return total((LOOP, 1), ({"lut": 40, "ff": 64}, lanes), (rounding, lanes))


def _sizes(op: HeadsOp) -> tuple[int, int, int, int]:
    heads = op.heads
    return heads.group.data, heads.run.data, heads.lanes.data, heads.states


def _scores(op: ScoresOp) -> Amounts:
    group, run, lanes, _ = _sizes(op)
    held = memory(run, 32 * lanes)
    each = total((FLOAT_MULTIPLY, lanes + 1), (folding(FLOAT_ADD, lanes), 1), (held, 1))
    return total((LOOP, 2), (each, group))


def _weigh(op: WeighOp) -> Amounts:
    """The interval of `run` cycles lets an operator be used again, which is not counted on."""
    group, _, _, states = _sizes(op)
    token = total((FLOAT_COMPARE, 1), (FLOAT_ADD, 3), (EXP, 2), (FLOAT_MULTIPLY, 1))
    joining = total(
        (FLOAT_COMPARE, states - 1), (FLOAT_ADD, 1), (EXP, 1), (FLOAT_MULTIPLY, 1),
        (folding(FLOAT_ADD, 1), 1), (FLOAT_DIVIDE, 1), ({"ff": 96}, states),
    )  # fmt: skip
    return total((LOOP, 3), (token, group), (joining, group))


def _accumulate(op: AccumulateOp) -> Amounts:
    group, run, lanes, states = _sizes(op)
    lane = total((FLOAT_MULTIPLY, 3), (FLOAT_ADD, 1))
    sums = memory(states * run, 32 * lanes)
    return total(
        (LOOP, 3), (lane, group * lanes), (sums, group), (folding(FLOAT_ADD, 1), lanes),
        ({"ff": 32}, states * group),
    )  # fmt: skip


ROW_RULES: dict[type[ProcessOp], Callable[[Any], Amounts]] = {
    ForkOp: _fork,
    MapOp: _map,
    FoldOp: _fold,
    SwapOp: _swap,
    RegroupOp: _regroup,
    ReadAtOp: _read_at,
    ReadCacheOp: _read_cache,
    AppendCacheOp: _append_cache,
    ScoresOp: _scores,
    WeighOp: _weigh,
    AccumulateOp: _accumulate,
}
"""Process -> what it takes. Estimates: only synthesis knows."""
