"""The processes of attention of one query token, whose keys and values stream from memory.

Softmax is online (Milakov and Gimelshein, arXiv:1805.02867): a new largest score corrects what was
summed before. Sums that are corrected cannot take a word in each cycle if each waits for the last
one's product and sum. So tokens are dealt out to `states` in turn, each with a maximum and sums of
its own, and these are joined at the end as parts of an attention are (FlashAttention,
arXiv:2205.14135).

How many tokens there are is known when a kernel runs: a token at `position` sees itself and all
before it. Streams of keys, values and scores are as long as that; their types say the most.
"""

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import I64, Float32Type, FloatAttr, IntAttr, IntegerAttr, f32, i64
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

from nybble.dialects.fpga.folding import RING, fold, larger, tree
from nybble.dialects.fpga.named import NamedAttr
from nybble.dialects.fpga.processes import F32, ProcessOp, memory_type
from nybble.dialects.fpga.rows import row_stream
from nybble.dialects.fpga.types import MemoryType, StreamType, unsigned
from nybble.dialects.fpga.words import U8, Integers
from nybble.dialects.numpy_ref import table_exp

POSITION = StreamType.get(1, 1, unsigned(32))
"""Where the token stands; one that is past the end of a context is taken for its last."""
FloatProp = FloatAttr[Float32Type]


@irdl_attr_definition
class HeadsAttr(NamedAttr):
    """`heads` of keys with `group` of queries each, over `context` tokens at most.

    A head of a token is `run` words of `lanes` elements.
    """

    name = "fpga.heads"
    FIELDS = ("heads", "group", "context", "run", "lanes")
    heads: IntAttr
    group: IntAttr
    context: IntAttr
    run: IntAttr
    lanes: IntAttr

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
    def cached(self) -> StreamType:
        """Keys, or values, of all tokens, head by head."""
        return row_stream(self.heads.data * self.context.data * self.run.data, self.lanes.data)

    @property
    def scores(self) -> StreamType:
        """A score for each query of a group: a word for each token of each head."""
        return row_stream(self.heads.data * self.context.data, self.group.data)

    @property
    def weights(self) -> StreamType:
        """What a token's value is multiplied by, then what the sums before it are."""
        return row_stream(self.heads.data * self.context.data, 2 * self.group.data)

    @property
    def factors(self) -> StreamType:
        """What each state's sums are multiplied by in the end."""
        return row_stream(self.heads.data * self.states, self.group.data)

    def verify(self) -> None:
        for name in self.FIELDS:
            if getattr(self, name).data < 1:
                raise VerifyException(f"{name} of an attention must be at least 1")
        if self.lanes.data & (self.lanes.data - 1):
            raise VerifyException(f"lanes are a power of two, got {self.lanes.data}")

    def tokens(self, position: Integers) -> int:
        """How many tokens are seen from a position, [1, 1]."""
        return int(min(position[0, 0] & 0xFFFFFFFF, self.context.data - 1)) + 1


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
        return self.heads.context.data * self.heads.run.data


@irdl_op_definition
class ReadCacheOp(HeadsOp):
    """What a cache [heads, context, run] holds up to the position; the last token comes by stream.

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
        heads, memory = self.heads, memory_type(self.memory)
        words = heads.cached.words.data
        wanted = [MemoryType.get(words, heads.lanes.data * bits) for bits in (16, 32)]
        if memory not in wanted:
            raise VerifyException(f"the cache must be {wanted[0]} or {wanted[1]}, got {memory}")

    def reference(self, memory: U8, position: Integers, rows: F32 | None = None) -> tuple[F32]:
        """memory: u8 [words, bits / 8], which is changed; rows: f32 [heads * run, lanes]."""
        heads, tokens = self.heads, self.heads.tokens(position)
        type_ = np.float16 if self.bits == 16 else np.float32
        shape = (heads.heads.data, heads.context.data, heads.run.data, heads.lanes.data)
        cache = memory.view(type_).reshape(shape)
        if rows is not None:
            with np.errstate(all="ignore"):
                cache[:, tokens - 1] = rows.reshape(shape[0], *shape[2:]).astype(type_)
        return (cache[:, :tokens].astype(np.float32).reshape(-1, shape[3]),)


@irdl_op_definition
class ScoresOp(HeadsOp):
    """`scale * q . k`: the queries of a head are held while its keys pass by."""

    name = "fpga.scores"
    query = operand_def(StreamType)
    keys = operand_def(StreamType)
    position = operand_def(StreamType)
    scores = result_def(StreamType)
    scale = prop_def(FloatProp)
    assembly_format = (
        "$query `,` $keys `at` $position `scale` $scale `heads` $heads attr-dict `:` "
        "type($query) `,` type($keys) `,` type($position) `->` type($scores)"
    )

    def __init__(
        self, query: SSAValue, keys: SSAValue, position: SSAValue, scale: float, heads: HeadsAttr
    ):
        super().__init__(
            operands=[query, keys, position],
            result_types=[heads.scores],
            properties={"heads": heads, "scale": FloatAttr(scale, f32)},
        )

    @property
    def factor(self) -> np.float32:
        """The scale."""
        return np.float32(self.scale.value.data)

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return self.heads.queries, self.heads.cached, POSITION

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (self.heads.scores,)

    def cycles(self) -> int:
        """See `ProcessOp`: of a full cache."""
        return self.heads.queries.words.data + self.heads.cached.words.data

    def leads(self) -> Sequence[int]:
        """See `ProcessOp`."""
        run = self.heads.run.data
        return self.heads.group.data * run, run, 1

    def reference(self, query: F32, keys: F32, position: Integers) -> tuple[F32]:
        """query: f32 [heads * group * run, lanes]; keys: f32 [heads * tokens * run, lanes]."""
        heads = self.heads
        count, run, lanes = heads.heads.data, heads.run.data, heads.lanes.data
        q = query.reshape(count, heads.group.data, 1, run, lanes)
        k = keys.reshape(count, 1, -1, run, lanes)
        with np.errstate(all="ignore"):
            dots = fold(tree(q * k)) * self.factor
        return (np.ascontiguousarray(dots.transpose(0, 2, 1)).reshape(-1, heads.group.data),)


@irdl_op_definition
class WeighOp(HeadsOp):
    """exp(score - largest so far) of each token, and by what that changes what came before it."""

    name = "fpga.weigh"
    scores = operand_def(StreamType)
    position = operand_def(StreamType)
    weights = result_def(StreamType)
    factors = result_def(StreamType)
    assembly_format = (
        "$scores `at` $position `heads` $heads attr-dict `:` type($scores) `,` type($position) "
        "`->` type($weights) `,` type($factors)"
    )

    def __init__(self, scores: SSAValue, position: SSAValue, heads: HeadsAttr):
        super().__init__(
            operands=[scores, position],
            result_types=[heads.weights, heads.factors],
            properties={"heads": heads},
        )

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return self.heads.scores, POSITION

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return self.heads.weights, self.heads.factors

    def cycles(self) -> int:
        """See `ProcessOp`: a token in as many cycles as a head has words, since scores come so."""
        return self.heads.heads.data * (self.most + 2 * self.heads.states)

    def tail(self) -> int:
        """See `ProcessOp`."""
        return 2 * self.heads.states

    def reference(self, scores: F32, position: Integers) -> tuple[F32, F32]:
        """scores: f32 [heads * tokens, group]."""
        heads, tokens = self.heads, self.heads.tokens(position)
        count, group, states = heads.heads.data, heads.group.data, heads.states
        given = scores.reshape(count, tokens, group)
        largest = np.full((states, count, group), -np.inf, np.float32)
        total = np.zeros((states, count, group), np.float32)
        weights = np.zeros((count, tokens, 2, group), np.float32)
        with np.errstate(all="ignore"):
            for token in range(tokens):
                state, score = token % states, given[:, token]
                most = larger(largest[state], score)
                weights[:, token, 0] = table_exp.exp(score - most)
                weights[:, token, 1] = table_exp.exp(largest[state] - most)
                total[state] = total[state] * weights[:, token, 1] + weights[:, token, 0]
                largest[state] = most
            most = largest[0]
            for state in range(1, states):
                most = larger(most, largest[state])
            parts = table_exp.exp(largest - most)
            whole = fold((parts * total).transpose(1, 2, 0))
            factors = (parts / whole).transpose(1, 0, 2)
        flat = np.ascontiguousarray(factors, np.float32).reshape(-1, group)
        return weights.reshape(-1, 2 * group), flat


@irdl_op_definition
class AccumulateOp(HeadsOp):
    """Sums of values by their weights, in the end by the factors of their states."""

    name = "fpga.accumulate"
    values = operand_def(StreamType)
    weights = operand_def(StreamType)
    factors = operand_def(StreamType)
    position = operand_def(StreamType)
    result = result_def(StreamType)
    assembly_format = (
        "$values `by` $weights `,` $factors `at` $position `heads` $heads attr-dict `:` "
        "type($values) `,` type($weights) `,` type($factors) `,` type($position) "
        "`->` type($result)"
    )

    def __init__(
        self,
        values: SSAValue,
        weights: SSAValue,
        factors: SSAValue,
        position: SSAValue,
        heads: HeadsAttr,
    ):
        super().__init__(
            operands=[values, weights, factors, position],
            result_types=[heads.queries],
            properties={"heads": heads},
        )

    def taken(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return self.heads.cached, self.heads.weights, self.heads.factors, POSITION

    def made(self) -> Sequence[StreamType]:
        """See `ProcessOp`."""
        return (self.heads.queries,)

    def cycles(self) -> int:
        """See `ProcessOp`: of a full cache."""
        heads = self.heads
        joining = heads.queries.words.data * heads.states + heads.factors.words.data
        return heads.cached.words.data + joining

    def leads(self) -> Sequence[int]:
        """See `ProcessOp`: of a full cache."""
        return self.most, self.heads.context.data, self.heads.states, 1

    def tail(self) -> int:
        """See `ProcessOp`."""
        return self.heads.group.data * self.heads.run.data * self.heads.states

    def reference(self, values: F32, weights: F32, factors: F32, position: Integers) -> tuple[F32]:
        """values: f32 [heads * tokens * run, lanes]; weights: f32 [heads * tokens, 2 * group]."""
        heads, tokens = self.heads, self.heads.tokens(position)
        count, group, states = heads.heads.data, heads.group.data, heads.states
        run, lanes = heads.run.data, heads.lanes.data
        v = values.reshape(count, tokens, 1, run, lanes)
        by = weights.reshape(count, tokens, 2, group, 1, 1)
        last = factors.reshape(count, states, group, 1, 1)
        sums = np.zeros((count, group, run, lanes, states), np.float32)
        with np.errstate(all="ignore"):
            for token in range(tokens):
                state, term = token % states, v[:, token] * by[:, token, 0]
                corrected = sums[..., state] * by[:, token, 1]
                sums[..., state] = term if token < states else corrected + term
            parts = [sums[..., s] * last[:, s] for s in range(min(states, tokens))]
            parts += [np.zeros_like(parts[0])] * (states - len(parts))
            found = fold(np.stack(parts, axis=-1))
        return (found.reshape(-1, lanes),)
