"""Caches of keys and values in memory, and rows of tables, at a position that a run brings.

A token at `position` sees itself and all before it, or the first and the last of them. Streams of
what a cache holds are as long as that; their types say the most.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import I64, IntAttr, IntegerAttr, i64
from xdsl.ir import SSAValue
from xdsl.irdl import (
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.fpga.folding import RING
from nybble.dialects.fpga.named import NamedAttr
from nybble.dialects.fpga.processes import F32, ProcessOp, memory_type
from nybble.dialects.fpga.rows import row_stream
from nybble.dialects.fpga.types import MemoryType, StreamType, unsigned
from nybble.dialects.fpga.words import U8, Integers

POSITION = StreamType.get(1, 1, unsigned(32))
"""Where the token stands; one that is past the end of a context is taken for its last."""


@irdl_attr_definition
class HeadsAttr(NamedAttr):
    """`heads` of keys with `group` of queries each, in caches of `context` tokens.

    A head of a token is `run` words of `lanes` elements. Of the tokens up to a position the first
    `sink` are seen and the last ones, `seen` together: all of them where that is the context.
    """

    name = "fpga.heads"
    FIELDS = ("heads", "group", "context", "run", "lanes", "seen", "sink")
    heads: IntAttr
    group: IntAttr
    context: IntAttr
    run: IntAttr
    lanes: IntAttr
    seen: IntAttr
    sink: IntAttr

    @property
    def states(self) -> int:
        """Attentions over parts of the tokens, so that each sum has RING cycles."""
        return -(-RING // self.run.data)

    @property
    def queries(self) -> StreamType:
        """Rows of queries, and of results."""
        return row_stream(self.heads.data * self.group.data * self.run.data, self.lanes.data)

    @property
    def rows(self) -> StreamType:
        """A token's keys, or values."""
        return row_stream(self.heads.data * self.run.data, self.lanes.data)

    @property
    def stored(self) -> int:
        """Words of a cache in memory."""
        return self.heads.data * self.context.data * self.run.data

    @property
    def cached(self) -> StreamType:
        """Keys, or values, of all tokens that are seen, head by head."""
        return row_stream(self.heads.data * self.seen.data * self.run.data, self.lanes.data)

    @property
    def scores(self) -> StreamType:
        """A score for each query of a group: a word for each token of each head."""
        return row_stream(self.heads.data * self.seen.data, self.group.data)

    @property
    def weights(self) -> StreamType:
        """What a token's value is multiplied by, then what the sums before it are."""
        return row_stream(self.heads.data * self.seen.data, 2 * self.group.data)

    @property
    def factors(self) -> StreamType:
        """What each state's sums are multiplied by in the end."""
        return row_stream(self.heads.data * self.states, self.group.data)

    def verify(self) -> None:
        for name in self.FIELDS[:-1]:
            if getattr(self, name).data < 1:
                raise VerifyException(f"{name} of an attention must be at least 1")
        if not 0 <= self.sink.data < self.seen.data <= self.context.data:
            raise VerifyException(
                f"{self.seen.data} tokens are seen, the first {self.sink.data} among them, in a "
                f"context of {self.context.data}"
            )
        if self.lanes.data & (self.lanes.data - 1):
            raise VerifyException(f"lanes are a power of two, got {self.lanes.data}")

    def tokens(self, position: Integers) -> int:
        """How many tokens there are up to a position, [1, 1]."""
        return int(min(position[0, 0] & 0xFFFFFFFF, self.context.data - 1)) + 1

    def places(self, position: Integers) -> npt.NDArray[np.intp]:
        """The tokens that are seen from a position."""
        tokens, first = self.tokens(position), self.sink.data
        last = max(first, tokens - (self.seen.data - first))
        return np.array([*range(min(first, tokens)), *range(last, tokens)], np.intp)


@irdl_op_definition
class ReadAtOp(ProcessOp):
    """Rows of `row` words of memory, `count` of them from the position on, each `repeat` times."""

    name = "fpga.read_at"
    memory = operand_def(MemoryType)
    position = operand_def(StreamType)
    stream = result_def(StreamType)
    row = prop_def(IntegerAttr[I64])
    count = prop_def(IntegerAttr[I64])
    repeat = prop_def(IntegerAttr[I64])
    assembly_format = (
        "$memory `at` $position `row` $row `count` $count `repeat` $repeat attr-dict `:` "
        "type($memory) `,` type($position) `->` type($stream)"
    )

    def __init__(self, memory: SSAValue, position: SSAValue, row: int, count: int, repeat: int):
        lanes = memory_type(memory).bits.data // 32
        super().__init__(
            operands=[memory, position],
            result_types=[row_stream(row * count * repeat, lanes)],
            properties={
                "row": IntegerAttr(row, i64),
                "count": IntegerAttr(count, i64),
                "repeat": IntegerAttr(repeat, i64),
            },
        )

    @property
    def last(self) -> int:
        """The last position from which there are as many rows."""
        return memory_type(self.memory).words.data // self.row.value.data - self.count.value.data

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (POSITION,)

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        words = self.row.value.data * self.count.value.data * self.repeat.value.data
        return (row_stream(words, memory_type(self.memory).bits.data // 32),)

    def cycles(self) -> int:
        """See `ProcessOp`."""
        return self.made()[0].words.data

    def verify_(self) -> None:
        if self.row.value.data < 1 or self.last < 0:
            raise VerifyException(
                f"{self.count.value.data} rows of {self.row.value.data} words are not in "
                f"{self.memory.type}"
            )
        super().verify_()

    def reference(self, memory: U8, position: Integers) -> tuple[F32]:
        """memory: u8 [words, bits / 8]; position: [1, 1]."""
        first = int(min(position[0, 0] & 0xFFFFFFFF, self.last))
        rows = memory.view(np.float32).reshape(-1, self.row.value.data, memory.shape[1] // 4)
        some = rows[first : first + self.count.value.data]
        repeated = np.repeat(some, self.repeat.value.data, axis=0)
        return (repeated.reshape(-1, some.shape[-1]),)


class HeadsOp(ProcessOp):
    """A process of an attention."""

    heads = prop_def(HeadsAttr)

    @property
    def most(self) -> int:
        """Words of keys of one head, at most."""
        return self.heads.seen.data * self.heads.run.data


@irdl_op_definition
class ReadCacheOp(HeadsOp):
    """What is seen of a cache [heads, context, run]; the last token comes by stream.

    Where there are `rows`, they are written to the cache at the position, rounded to its type, and
    are what is read there. Elements of memory are f16 or f32.
    """

    name = "fpga.read_cache"
    memory = operand_def(MemoryType)
    position = operand_def(StreamType)
    rows = opt_operand_def(StreamType)
    stream = result_def(StreamType)
    assembly_format = (
        "$memory `at` $position (`appends` $rows^ `:` type($rows))? `heads` $heads attr-dict `:` "
        "type($memory) `,` type($position) `->` type($stream)"
    )

    def __init__(
        self, memory: SSAValue, position: SSAValue, rows: SSAValue | None, heads: HeadsAttr
    ):
        super().__init__(
            operands=[memory, position, rows],
            result_types=[heads.cached],
            properties={"heads": heads},
        )

    @property
    def bits(self) -> int:
        """Of an element of the memory."""
        return memory_type(self.memory).bits.data // self.heads.lanes.data

    @property
    def written(self) -> Sequence[SSAValue]:
        """See `ProcessOp`."""
        return () if self.rows is None else (self.memory,)

    @property
    def read(self) -> Sequence[SSAValue]:
        """See `ProcessOp`: also where it is written."""
        return (self.memory,)

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (POSITION,) if self.rows is None else (POSITION, self.heads.rows)

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (self.heads.cached,)

    def cycles(self) -> int:
        """See `ProcessOp`: of a full cache."""
        return self.heads.cached.words.data

    def tail(self) -> int:
        """See `ProcessOp`: the other heads, where the first one's last token came last."""
        heads = self.heads
        return 0 if self.rows is None else (heads.heads.data - 1) * self.most

    def verify_(self) -> None:
        super().verify_()
        check_cache(self.heads, self.memory)

    def reference(self, memory: U8, position: Integers, rows: F32 | None = None) -> tuple[F32]:
        """memory: u8 [words, bits / 8], which is changed; rows: f32 [heads * run, lanes]."""
        heads, tokens = self.heads, self.heads.tokens(position)
        if rows is not None:
            put(heads, memory, tokens, rows, self.bits)
        seen = cache_of(heads, memory, self.bits)[:, heads.places(position)]
        return (seen.astype(np.float32).reshape(-1, heads.lanes.data),)


@irdl_op_definition
class AppendCacheOp(HeadsOp):
    """A token's rows to its place in a cache, where no attention reads the cache as well."""

    name = "fpga.append_cache"
    rows = operand_def(StreamType)
    position = operand_def(StreamType)
    memory = operand_def(MemoryType)
    assembly_format = (
        "$rows `,` $memory `at` $position `heads` $heads attr-dict `:` type($rows) `,` "
        "type($memory) `,` type($position)"
    )

    def __init__(self, rows: SSAValue, position: SSAValue, memory: SSAValue, heads: HeadsAttr):
        super().__init__(operands=[rows, position, memory], properties={"heads": heads})

    @property
    def bits(self) -> int:
        """Of an element of the memory."""
        return memory_type(self.memory).bits.data // self.heads.lanes.data

    @property
    def written(self) -> Sequence[SSAValue]:
        """See `ProcessOp`."""
        return (self.memory,)

    @property
    def read(self) -> Sequence[SSAValue]:
        """See `ProcessOp`: what is not written stays."""
        return (self.memory,)

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return self.heads.rows, POSITION

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return ()

    def cycles(self) -> int:
        """See `ProcessOp`."""
        return self.heads.rows.words.data

    def verify_(self) -> None:
        super().verify_()
        check_cache(self.heads, self.memory)

    def reference(self, rows: F32, position: Integers, memory: U8) -> tuple[()]:
        """rows: f32 [heads * run, lanes]; memory: u8 [words, bits / 8], which is changed."""
        put(self.heads, memory, self.heads.tokens(position), rows, self.bits)
        return ()


def check_cache(heads: HeadsAttr, memory: SSAValue) -> None:
    """Raise unless a memory holds the words of a cache, of f16 or f32."""
    words = heads.stored
    wanted = [MemoryType.get(words, heads.lanes.data * bits) for bits in (16, 32)]
    if memory.type not in wanted:
        raise VerifyException(f"the cache must be {wanted[0]} or {wanted[1]}, got {memory.type}")


def cache_of(heads: HeadsAttr, memory: U8, bits: int) -> npt.NDArray[Any]:
    """What a memory holds, [heads, context, run, lanes], in place."""
    shape = (heads.heads.data, heads.context.data, heads.run.data, heads.lanes.data)
    return memory.view(np.float16 if bits == 16 else np.float32).reshape(shape)


def put(heads: HeadsAttr, memory: U8, tokens: int, rows: F32, bits: int) -> None:
    """Round a token's rows into its place, which is that of the last of so many."""
    cache = cache_of(heads, memory, bits)
    shape = (heads.heads.data, heads.run.data, heads.lanes.data)
    with np.errstate(all="ignore"):
        cache[:, tokens - 1] = rows.reshape(shape).astype(cache.dtype)
