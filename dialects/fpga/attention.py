"""The processes of attention of one query token, whose keys and values stream from memory.

Softmax is online (Milakov and Gimelshein, arXiv:1805.02867): a new largest score corrects what was
summed before. Sums that are corrected cannot take a word in each cycle if each waits for the last
one's product and sum. So tokens are dealt out to `states` in turn, each with a maximum and sums of
its own, and these are joined at the end as parts of an attention are (FlashAttention,
arXiv:2205.14135).

How many tokens there are is known when a kernel runs: a token at `position` sees itself and all
before it, or the first and the last of them. Streams of keys, values and scores are as long as
that; their types say the most.
"""

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import Float32Type, FloatAttr, f32
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def

from nybble.dialects.fpga.caches import POSITION, HeadsAttr, HeadsOp
from nybble.dialects.fpga.folding import fold, larger, tree
from nybble.dialects.fpga.processes import F32
from nybble.dialects.fpga.types import StreamType
from nybble.dialects.fpga.words import Integers
from nybble.dialects.numpy_ref import table_exp

FloatProp = FloatAttr[Float32Type]


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
        heads, tokens = self.heads, len(self.heads.places(position))
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
        return self.most, self.heads.seen.data, self.heads.states, 1

    def tail(self) -> int:
        """See `ProcessOp`."""
        return self.heads.group.data * self.heads.run.data * self.heads.states

    def reference(self, values: F32, weights: F32, factors: F32, position: Integers) -> tuple[F32]:
        """values: f32 [heads * tokens * run, lanes]; weights: f32 [heads * tokens, 2 * group]."""
        heads, tokens = self.heads, len(self.heads.places(position))
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
