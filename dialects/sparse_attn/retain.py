"""Attention that evicts: a cache of fixed size whose tokens are chosen while a model runs."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import (
    Float16Type,
    Float32Type,
    FloatAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    StringAttr,
    TensorType,
    i32,
)
from xdsl.irdl import (
    AttrSizedOperandSegments,
    BaseAttr,
    IRDLOperation,
    VarConstraint,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_result_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.numpy_ref.arrays import KvArray
from nybble.dialects.numpy_ref.retain import Budget, Kept, retain
from nybble.dialects.shapes import check_equal, check_rank

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
F32Tensor = TensorType.constr(Float32Type())
PlainCache = TensorType.constr(BaseAttr(Float32Type) | BaseAttr(Float16Type))
Number = IntegerAttr[IntegerType]
ACCUMULATED, LAST, LEARNED = "accumulated", "last", "learned"
SCORES = (ACCUMULATED, LAST, LEARNED)
"""By what tokens stay: all attention since they came, that of the last queries, a given number."""


@irdl_op_definition
class RetainOp(IRDLOperation):
    """Attention of query rows over a cache that keeps recent tokens and others that score high.

    The rows are taken one after the other. The token of a row goes to a ring of the last `slots -
    budget` ones; a run of `size` tokens that leaves the ring competes for `budget` slots with the
    runs there. Then the row attends to all that are kept. Keys are [heads, head_dim, slots],
    values [heads, slots, head_dim]: what slots not taken yet hold does not matter.

    `by` says what the score of a token is, and `mass` f32 [heads, 1 + queries, slots] holds it:
    "accumulated" (no queries) the attention that it got since it came (H2O, arXiv:2306.14048),
    "last" that of the last `queries` ones (ALISA, arXiv:2403.17312), "learned" (no queries) what
    `scores` f32 [n, heads] has for it (Locret, arXiv:2410.01805). `moves` i32 [heads, 1, positions]
    becomes, at a position modulo their number, the slot of what left the ring then. Without `by`
    nothing is chosen: the moves of another layer are repeated (WindowKV, arXiv:2503.17922).
    """

    name = "sparse_attn.retain"
    QUERY: ClassVar = VarConstraint("QUERY", F32Tensor)
    ROWS: ClassVar = VarConstraint("ROWS", F32Tensor)
    KEYS: ClassVar = VarConstraint("KEYS", PlainCache)
    VALUES: ClassVar = VarConstraint("VALUES", PlainCache)
    query = operand_def(QUERY)
    key_rows = operand_def(ROWS)
    value_rows = operand_def(ROWS)
    keys = operand_def(KEYS)
    values = operand_def(VALUES)
    moves = operand_def(TensorType.constr(i32))
    position = operand_def(IndexType())
    mass = opt_operand_def(F32Tensor)
    scores = opt_operand_def(F32Tensor)
    by = opt_prop_def(StringAttr)
    budget = prop_def(Number)
    size = prop_def(Number)
    scale = prop_def(FloatAttr[Float32Type])
    result = result_def(QUERY)
    new_keys = result_def(KEYS)
    new_values = result_def(VALUES)
    new_state = var_result_def(TensorType.constr(BaseAttr(Float32Type) | BaseAttr(IntegerType)))
    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    traits = traits_def(Pure())
    assembly_format = (
        "$query `,` $key_rows `,` $value_rows `into` $keys `,` $values `,` $moves `at` $position "
        "(`by` $by^ $mass)? (`of` $scores^)? `budget` $budget `size` $size `scale` $scale "
        "attr-dict `:` type($query) `,` type($key_rows) `into` type($keys) `,` type($values) `,` "
        "type($moves) "
        "(`by` type($mass)^)? (`of` type($scores)^)? (`->` type($new_state)^)?"
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Heads, slots and features of the cache."""
        heads, dim, slots = check_rank("keys", self.keys, 3)
        return heads, slots, dim

    @property
    def queries(self) -> int:
        """Last queries whose attention counts; 0 for all of them, or none."""
        return 0 if self.mass is None else check_rank("mass", self.mass, 3)[1] - 1

    def verify_(self) -> None:
        heads, slots, dim = self.shape
        kept = check_rank("values", self.values, 3)
        if kept != (heads, slots, dim):
            raise VerifyException(f"values must be [{heads}, {slots}, {dim}], got {list(kept)}")
        rows, features = check_rank("rows", self.key_rows, 2)
        check_equal("columns of the rows", features, heads * dim, "heads * head_dim of the cache")
        _, columns = check_rank("query", self.query, 2)
        if columns % features:
            raise VerifyException(
                f"columns of the query must be a multiple of {features}, got {columns}"
            )
        self._check_budget(slots)
        self._check_state(heads, slots)
        self._check_scores(rows, heads)

    def _check_budget(self, slots: int) -> None:
        budget, size = self.budget.value.data, self.size.value.data
        if not 0 < budget < slots:
            raise VerifyException(
                f"a budget of {budget} of {slots} slots; accepted: 1 to {slots - 1}"
            )
        if size < 1 or budget % size or slots - budget < size:
            raise VerifyException(
                f"runs of {size} tokens of a budget of {budget} and {slots - budget} recent ones; "
                "accepted: a divisor of the budget, at most the recent ones"
            )

    def _check_state(self, heads: int, slots: int) -> None:
        moves = check_rank("moves", self.moves, 3)
        if moves[:2] != (heads, 1) or moves[2] < self.size.value.data:
            raise VerifyException(
                f"moves must be [{heads}, 1, positions], {self.size.value.data} of these or more, "
                f"got {list(moves)}"
            )
        state = () if self.mass is None else (self.mass.type, self.moves.type)
        if tuple(one.type for one in self.new_state) != state:
            raise VerifyException("the new state must have the types of mass and moves, or be none")
        if self.mass is not None:
            of, rows, columns = check_rank("mass", self.mass, 3)
            if (of, columns) != (heads, slots) or rows < 1:
                raise VerifyException(
                    f"mass must be [{heads}, 1 + queries, {slots}], got {[of, rows, columns]}"
                )

    def _check_scores(self, rows: int, heads: int) -> None:
        by = None if self.by is None else self.by.data
        if by not in (None, *SCORES):
            raise VerifyException(f'unknown score "{by}"; accepted: {", ".join(SCORES)}')
        if (by is None) is not (self.mass is None):
            raise VerifyException("a score needs a mass, and a mass a score")
        if (self.queries > 0) is not (by == LAST):
            raise VerifyException(
                f'a mass of {self.queries} queries by "{by or "nothing"}"; '
                f'accepted: one or more by "{LAST}", otherwise none'
            )
        if (self.scores is not None) is not (by == LEARNED):
            raise VerifyException(f'scores go with "{LEARNED}", and it with scores')
        if self.scores is not None:
            given = check_rank("scores", self.scores, 2)
            if given != (rows, heads):
                raise VerifyException(
                    f"scores must have {heads} columns and the rows of the query, "
                    f"got {given[1]} columns"
                )

    def reference(
        self,
        query: Array,
        key_rows: Array,
        value_rows: Array,
        keys: KvArray,
        values: KvArray,
        moves: Ints,
        position: int,
        *rest: Array,
    ) -> Sequence[npt.NDArray[np.generic]]:
        """query f32 [n, Hq*D]; rows f32 [n, H*D]; keys [H, D, S], values [H, S, D], moves i32
        [H, 1, P], mass f32 [H, 1 + queries, S], scores f32 [n, H]."""
        mass, scores = (*rest, None, None)[:2]
        budget = Budget(self.budget.value.data, self.scale.value.data, self.size.value.data)
        state = Kept(keys, values, moves[:, 0].astype(np.int32), mass)
        out, new = retain(query, (key_rows, value_rows), state, position, budget, scores)
        chosen = () if new.mass is None else (new.mass, new.moves[:, None])
        return (out, new.keys, new.values, *chosen)
