"""Processes that operators on rows are made of: maps, folds, and words in another order.

A row of a stream lies in words of `lanes` neighbouring columns, which divide it. A norm, a gate, a
rotation or a softmax is a few of these processes, see `backends.fpga.operators`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import I64, FloatAttr, IntegerAttr, StringAttr, f32, i64
from xdsl.dialects.utils import AbstractYieldOperation
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    lazy_traits_def,
    operand_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import HasParent, IsolatedFromAbove, IsTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.fpga.folding import JOINS, fold, tree
from nybble.dialects.fpga.processes import F32, ProcessOp
from nybble.dialects.fpga.types import StreamType
from nybble.dialects.numpy_ref import table_exp

SCALARS: dict[type[Operation], Callable[..., Any]] = {
    arith.AddfOp: np.add,
    arith.SubfOp: np.subtract,
    arith.MulfOp: np.multiply,
    arith.DivfOp: np.divide,
    arith.NegfOp: np.negative,
    math.SqrtOp: np.sqrt,
    math.ExpOp: table_exp.exp,
}
"""What a map may do with f32, beside constants; each rounds its result once, and exp as it says."""


def stream_type(value: SSAValue) -> StreamType:
    """The type of a stream."""
    assert isinstance(value.type, StreamType)
    return value.type


def row_stream(words: int, lanes: int) -> StreamType:
    """A stream of f32."""
    return StreamType.get(words, lanes, f32)


@irdl_op_definition
class ForkOp(ProcessOp):
    """Each word to several streams. How many words each must hold follows from who reads them."""

    name = "fpga.fork"
    input = operand_def(StreamType)
    copies = var_result_def(StreamType)
    assembly_format = "$input attr-dict `:` type($input) `->` type($copies)"

    def __init__(self, value: SSAValue, copies: int):
        super().__init__(operands=[value], result_types=[[stream_type(value)] * copies])

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (stream_type(self.input),)

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (stream_type(self.input),) * len(self.copies)

    def cycles(self) -> int:
        """See `ProcessOp`."""
        return stream_type(self.input).words.data

    def verify_(self) -> None:
        if len(self.copies) < 2:
            raise VerifyException(f"a fork has at least 2 results, got {len(self.copies)}")
        super().verify_()

    def reference(self, words: Any) -> tuple[Any, ...]:
        """words: [words, lanes]."""
        return (words,) * len(self.copies)


@irdl_op_definition
class YieldOp(AbstractYieldOperation[Attribute]):
    """The element that a map writes."""

    name = "fpga.yield"
    traits = lazy_traits_def(lambda: (IsTerminator(), HasParent(MapOp), Pure()))


@irdl_op_definition
class MapOp(ProcessOp):
    """An element of each input to an element of the result, as the region says, in every lane.

    An input of one lane gives its element to all of them; one of fewer words than the result holds
    each as long as the result needs.
    """

    name = "fpga.map"
    inputs = var_operand_def(StreamType)
    result = result_def(StreamType)
    body = region_def("single_block")
    traits = traits_def(IsolatedFromAbove())
    assembly_format = (
        "`(` $inputs `)` `:` functional-type($inputs, $result) $body attr-dict-with-keyword"
    )

    def __init__(
        self, inputs: Sequence[SSAValue], body: Callable[[Block, Sequence[SSAValue]], SSAValue]
    ):
        """body: adds its operations to a block and gives the last one's result."""
        types = [stream_type(one) for one in inputs]
        block = Block(arg_types=[f32] * len(inputs))
        block.add_op(YieldOp(body(block, block.args)))
        words, lanes = max(t.words.data for t in types), max(t.lanes.data for t in types)
        super().__init__(
            operands=[inputs], result_types=[row_stream(words, lanes)], regions=[Region(block)]
        )

    @property
    def steps(self) -> list[Operation]:
        """The operations of the region, without its end."""
        return [op for op in self.body.block.ops if not isinstance(op, YieldOp)]

    @property
    def yielded(self) -> SSAValue:
        """What the region gives."""
        last = self.body.block.last_op
        assert isinstance(last, YieldOp)
        return last.arguments[0]

    def holds(self) -> list[int]:
        """For how many words of the result each input's word is held."""
        words = stream_type(self.result).words.data
        return [words // stream_type(one).words.data for one in self.inputs]

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return [stream_type(one) for one in self.inputs]

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        types = self.taken()
        words, lanes = max(t.words.data for t in types), max(t.lanes.data for t in types)
        return (row_stream(words, lanes),)

    def cycles(self) -> int:
        """See `ProcessOp`."""
        return stream_type(self.result).words.data

    def verify_(self) -> None:
        if not self.inputs:
            raise VerifyException("a map needs an input")
        super().verify_()
        (made,) = self.made()
        for index, type_ in enumerate(self.taken()):
            fits = type_.lanes.data in (1, made.lanes.data) and not (
                made.words.data % type_.words.data
            )
            if not fits or not type_.is_float:
                raise VerifyException(f"input {index}, {type_}, does not go with {made}")
        arguments = self.body.block.args
        if [one.type for one in arguments] != [f32] * len(self.inputs):
            raise VerifyException("a map's region takes an f32 of each input")
        for op in self.steps:
            if type(op) not in SCALARS and not isinstance(op, arith.ConstantOp):
                accepted = ", ".join(sorted(one.name for one in (*SCALARS, arith.ConstantOp)))
                raise VerifyException(f"'{op.name}' is no operation of a map; accepted: {accepted}")
        last = self.body.block.last_op
        if not isinstance(last, YieldOp) or [one.type for one in last.arguments] != [f32]:
            raise VerifyException("a map's region must yield one f32")

    def reference(self, *inputs: F32) -> tuple[F32]:
        """inputs: f32 [words, lanes or 1] each."""
        held = zip(inputs, self.holds(), strict=True)
        spread = (np.repeat(one, times, axis=0) for one, times in held)
        values: dict[SSAValue, Any] = dict(zip(self.body.block.args, spread, strict=True))
        with np.errstate(all="ignore"):
            for op in self.steps:
                if isinstance(op, arith.ConstantOp):
                    values[op.result] = np.float32(constant_of(op))
                else:
                    found = SCALARS[type(op)](*(values[one] for one in op.operands))
                    values[op.results[0]] = found
        lanes = stream_type(self.result).lanes.data
        found = np.broadcast_to(values[self.yielded], (len(inputs[0]) * self.holds()[0], lanes))
        return (np.asarray(found, np.float32),)


def constant_of(op: arith.ConstantOp) -> float:
    """The f32 that a constant is."""
    assert isinstance(op.value, FloatAttr)
    return float(np.float32(op.value.value.data))


@irdl_op_definition
class FoldOp(ProcessOp):
    """The sum or the largest of all elements of each run of words, in the order of `folding`."""

    name = "fpga.fold"
    input = operand_def(StreamType)
    result = result_def(StreamType)
    kind = prop_def(StringAttr)
    run = prop_def(IntegerAttr[I64])
    assembly_format = "$kind $input `run` $run attr-dict `:` type($input) `->` type($result)"

    def __init__(self, kind: str, value: SSAValue, run: int):
        super().__init__(
            operands=[value],
            result_types=[row_stream(stream_type(value).words.data // run, 1)],
            properties={"kind": StringAttr(kind), "run": IntegerAttr(run, i64)},
        )

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        type_ = stream_type(self.input)
        return (row_stream(type_.words.data, type_.lanes.data),)

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (row_stream(stream_type(self.input).words.data // self.run.value.data, 1),)

    def cycles(self) -> int:
        """See `ProcessOp`."""
        return stream_type(self.input).words.data

    def leads(self) -> Sequence[int]:
        """See `ProcessOp`: a whole run."""
        return (self.run.value.data,)

    def verify_(self) -> None:
        if self.kind.data not in JOINS:
            raise VerifyException(f'unknown fold "{self.kind.data}"; accepted: {", ".join(JOINS)}')
        check_run(self.input, self.run.value.data)
        lanes = stream_type(self.input).lanes.data
        if lanes & (lanes - 1):
            raise VerifyException(f"lanes of a fold are a power of two, got {lanes}")
        super().verify_()

    def reference(self, words: F32) -> tuple[F32]:
        """words: f32 [words, lanes]."""
        kind = self.kind.data
        with np.errstate(all="ignore"):
            found = fold(tree(words, kind).reshape(-1, self.run.value.data), kind)
        return (found[:, None],)


def check_run(value: SSAValue, run: int, step: int = 1) -> None:
    """Raise unless a stream has whole runs of a multiple of `step` words."""
    words = stream_type(value).words.data
    if run < 1 or run % step or words % run:
        kind = "even runs" if step == 2 else "runs"
        raise VerifyException(f"{words} words are no whole {kind} of {run}")


@irdl_op_definition
class SwapOp(ProcessOp):
    """Exchange the two halves of each run of words."""

    name = "fpga.swap"
    input = operand_def(StreamType)
    result = result_def(StreamType)
    run = prop_def(IntegerAttr[I64])
    assembly_format = "$input `run` $run attr-dict `:` type($input) `->` type($result)"

    def __init__(self, value: SSAValue, run: int):
        super().__init__(
            operands=[value],
            result_types=[stream_type(value)],
            properties={"run": IntegerAttr(run, i64)},
        )

    @property
    def half(self) -> int:
        """Words that are held."""
        return self.run.value.data // 2

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (stream_type(self.input),)

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return self.taken()

    def cycles(self) -> int:
        """See `ProcessOp`."""
        return stream_type(self.input).words.data + self.half

    def leads(self) -> Sequence[int]:
        """See `ProcessOp`."""
        return (self.half + 1,)

    def tail(self) -> int:
        """See `ProcessOp`."""
        return self.half

    def verify_(self) -> None:
        check_run(self.input, self.run.value.data, 2)
        super().verify_()

    def reference(self, words: F32) -> tuple[F32]:
        """words: [words, lanes]."""
        halves = words.reshape(-1, 2, self.half, words.shape[1])
        return (halves[:, ::-1].reshape(words.shape),)


@irdl_op_definition
class RegroupOp(ProcessOp):
    """One row of `columns` elements in words of another number of lanes; padding becomes 0."""

    name = "fpga.regroup"
    input = operand_def(StreamType)
    result = result_def(StreamType)
    columns = prop_def(IntegerAttr[I64])
    assembly_format = "$input `columns` $columns attr-dict `:` type($input) `->` type($result)"

    def __init__(self, value: SSAValue, columns: int, lanes: int):
        super().__init__(
            operands=[value],
            result_types=[row_stream(-(-columns // lanes), lanes)],
            properties={"columns": IntegerAttr(columns, i64)},
        )

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (self._of(self.input),)

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (self._of(self.result),)

    def _of(self, value: SSAValue) -> StreamType:
        lanes = stream_type(value).lanes.data
        return row_stream(-(-self.columns.value.data // lanes), lanes)

    def cycles(self) -> int:
        """See `ProcessOp`: in a cycle a word is read where one is wanted, and one is written.

        The last word that is read can hold more than the word that it completes.
        """
        taken, given = stream_type(self.input), stream_type(self.result)
        have, want = taken.lanes.data, given.lanes.data
        if have >= want:
            return given.words.data
        last = taken.words.data
        whole = last * have // want
        return last + (whole < given.words.data and whole > (last - 1) * have // want)

    def leads(self) -> Sequence[int]:
        """See `ProcessOp`."""
        return (-(-stream_type(self.result).lanes.data // stream_type(self.input).lanes.data),)

    def reference(self, words: F32) -> tuple[F32]:
        """words: f32 [words, lanes]."""
        columns, type_ = self.columns.value.data, stream_type(self.result)
        row = np.zeros(type_.words.data * type_.lanes.data, np.float32)
        row[:columns] = words.reshape(-1)[:columns]
        return (row.reshape(type_.words.data, type_.lanes.data),)
