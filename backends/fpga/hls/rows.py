"""What the templates of processes on rows and of attention need."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from xdsl.dialects import arith, math
from xdsl.ir import Operation, SSAValue

from nybble.backends.fpga.hls.words import Context, memory_context, stream_context
from nybble.dialects.fpga.attention import AccumulateOp, ScoresOp, WeighOp
from nybble.dialects.fpga.caches import AppendCacheOp, HeadsAttr, ReadAtOp, ReadCacheOp
from nybble.dialects.fpga.folding import RING
from nybble.dialects.fpga.processes import ProcessOp
from nybble.dialects.fpga.rows import (
    FoldOp,
    ForkOp,
    MapOp,
    RegroupOp,
    SwapOp,
    constant_of,
    stream_type,
)
from nybble.dialects.numpy_ref import table_exp

SCALARS: Mapping[type[Operation], str] = {
    arith.AddfOp: "{} + {}",
    arith.SubfOp: "{} - {}",
    arith.MulfOp: "{} * {}",
    arith.DivfOp: "{} / {}",
    arith.NegfOp: "-{}",
    math.SqrtOp: "std::sqrt({})",
    math.ExpOp: "exp_of({})",
}
"""Operation of a map -> C++ of its operands."""


def bits(value: float | np.floating) -> str:
    """The bits of an f32 as a C++ constant."""
    return f"{int(np.float32(value).view(np.uint32)):#x}u"


def header_context() -> Context:
    """What the header of row processes needs: the constants of `exp`."""
    return {
        "ring": RING,
        "exp": {
            "table": [bits(one) for one in table_exp.TABLE],
            "largest": bits(table_exp.LARGEST),
            "smallest": bits(table_exp.SMALLEST),
            "per_piece": bits(table_exp.PER_PIECE),
            "high": bits(table_exp.PIECE_HIGH),
            "low": bits(table_exp.PIECE_LOW),
            "sixth": bits(table_exp.SIXTH),
            "shift": table_exp.PIECES.bit_length() - 1,
        },
    }


def _words(value: SSAValue) -> int:
    return stream_type(value).words.data


def fork(op: ForkOp) -> Context:
    """What the template of a fork needs."""
    copies = [stream_context(one) for one in op.copies]
    return {"input": stream_context(op.input), "copies": copies, "words": _words(op.input)}


def map_(op: MapOp) -> Context:
    """What the template of a map needs: an expression for each operation of its region."""
    names: dict[SSAValue, str] = {one: f"v{i}" for i, one in enumerate(op.body.block.args)}
    steps: list[Context] = []
    for index, step in enumerate(op.steps):
        if isinstance(step, arith.ConstantOp):
            text = f"float_of({bits(constant_of(step))})"
        else:
            text = SCALARS[type(step)].format(*(names[one] for one in step.operands))
        names[step.results[0]] = f"t{index}"
        steps.append({"name": f"t{index}", "text": text})
    inputs = [
        {**stream_context(one), "hold": hold}
        for one, hold in zip(op.inputs, op.holds(), strict=True)
    ]
    return {
        "inputs": inputs,
        "result": stream_context(op.result),
        "words": _words(op.result),
        "lanes": stream_type(op.result).lanes.data,
        "steps": steps,
        "yielded": names[op.yielded],
    }


def fold(op: FoldOp) -> Context:
    """What the template of a fold needs."""
    return {
        "input": stream_context(op.input),
        "result": stream_context(op.result),
        "words": _words(op.input),
        "lanes": stream_type(op.input).lanes.data,
        "run": op.run.value.data,
        "largest": op.kind.data == "max",
    }


def swap(op: SwapOp) -> Context:
    """What the template of a swap needs."""
    return {
        "input": stream_context(op.input),
        "result": stream_context(op.result),
        "words": _words(op.input),
        "half": op.half,
    }


def regroup(op: RegroupOp) -> Context:
    """What the template of a regrouping needs."""
    return {
        "input": stream_context(op.input),
        "result": stream_context(op.result),
        "columns": op.columns.value.data,
        "lanes": stream_type(op.input).lanes.data,
        "words": _words(op.input),
        "result_lanes": stream_type(op.result).lanes.data,
        "result_words": _words(op.result),
        "cycles": op.cycles(),
    }


def read_at(op: ReadAtOp) -> Context:
    """What the template of a reader at a position needs."""
    return {
        "memory": memory_context(op.memory),
        "position": stream_context(op.position),
        "stream": stream_context(op.stream),
        "row": op.row.value.data,
        "count": op.count.value.data,
        "repeat": op.repeat.value.data,
        "last": op.last,
    }


def _heads(heads: HeadsAttr) -> Context:
    return {name: getattr(heads, name).data for name in heads.FIELDS} | {"states": heads.states}


def read_cache(op: ReadCacheOp) -> Context:
    """What the template of a cache's reader needs."""
    return {
        "h": _heads(op.heads),
        "memory": memory_context(op.memory),
        "position": stream_context(op.position),
        "rows": None if op.rows is None else stream_context(op.rows),
        "stream": stream_context(op.stream),
        "bits": op.bits,
    }


def append_cache(op: AppendCacheOp) -> Context:
    """What the template of an append needs."""
    return {
        "h": _heads(op.heads),
        "rows": stream_context(op.rows),
        "position": stream_context(op.position),
        "memory": memory_context(op.memory),
        "bits": op.bits,
    }


def scores(op: ScoresOp) -> Context:
    """What the template of scores needs."""
    return {"h": _heads(op.heads), "scale": bits(op.factor), **_streams(op)}


def attend(op: WeighOp | AccumulateOp) -> Context:
    """What the templates of weights and of their sums need."""
    return {"h": _heads(op.heads), **_streams(op)}


def _streams(op: ProcessOp) -> Context:
    """All operands and results by name."""
    definition = op.get_irdl_definition()
    names = [name for name, _ in (*definition.operands, *definition.results)]
    return {
        name: stream_context(value)
        for name, value in zip(names, (*op.operands, *op.results), strict=True)
    }


ROWS: dict[type[ProcessOp], Callable[[Any], Context]] = {
    ForkOp: fork,
    MapOp: map_,
    FoldOp: fold,
    SwapOp: swap,
    RegroupOp: regroup,
    ReadAtOp: read_at,
    ReadCacheOp: read_cache,
    AppendCacheOp: append_cache,
    ScoresOp: scores,
    WeighOp: attend,
    AccumulateOp: attend,
}
"""Process -> what its template needs; all of them include the header of rows."""
