"""Attention that evicts: a cache of fixed size whose tokens are chosen while a model runs."""

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
    TensorType,
)
from xdsl.irdl import (
    BaseAttr,
    IRDLOperation,
    VarConstraint,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.numpy_ref.arrays import KvArray
from nybble.dialects.numpy_ref.retain import retain
from nybble.dialects.shapes import check_equal, check_rank

Array = npt.NDArray[np.float32]
F32Tensor = TensorType.constr(Float32Type())
PlainCache = TensorType.constr(BaseAttr(Float32Type) | BaseAttr(Float16Type))


@irdl_op_definition
class RetainOp(IRDLOperation):
    """Attention of query rows over a cache that keeps heavy hitters and recent tokens.

    The rows are taken one after the other. The token of a row goes to a ring of the last `slots -
    budget` ones; what leaves the ring competes for `budget` slots with the tokens there, by the
    attention that each got since it came (H2O, arXiv:2306.14048). Then the row attends to all that
    are kept. Keys are [heads, head_dim, slots], values [heads, slots, head_dim], `mass` is f32
    [heads, 1, slots]: what the state of slots not taken yet is does not matter.
    """

    name = "sparse_attn.retain"
    QUERY: ClassVar = VarConstraint("QUERY", F32Tensor)
    ROWS: ClassVar = VarConstraint("ROWS", F32Tensor)
    KEYS: ClassVar = VarConstraint("KEYS", PlainCache)
    VALUES: ClassVar = VarConstraint("VALUES", PlainCache)
    MASS: ClassVar = VarConstraint("MASS", F32Tensor)
    query = operand_def(QUERY)
    key_rows = operand_def(ROWS)
    value_rows = operand_def(ROWS)
    keys = operand_def(KEYS)
    values = operand_def(VALUES)
    mass = operand_def(MASS)
    position = operand_def(IndexType())
    budget = prop_def(IntegerAttr[IntegerType])
    scale = prop_def(FloatAttr[Float32Type])
    result = result_def(QUERY)
    new_keys = result_def(KEYS)
    new_values = result_def(VALUES)
    new_mass = result_def(MASS)
    traits = traits_def(Pure())
    assembly_format = (
        "$query `,` $key_rows `,` $value_rows `into` $keys `,` $values `,` $mass `at` $position "
        "`budget` $budget `scale` $scale attr-dict `:` type($query) `,` type($key_rows) `into` "
        "type($keys) `,` type($values) `,` type($mass)"
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Heads, slots and features of the cache."""
        heads, dim, slots = check_rank("keys", self.keys, 3)
        return heads, slots, dim

    def verify_(self) -> None:
        heads, slots, dim = self.shape
        kept = check_rank("values", self.values, 3)
        if kept != (heads, slots, dim):
            raise VerifyException(f"values must be [{heads}, {slots}, {dim}], got {list(kept)}")
        mass = check_rank("mass", self.mass, 3)
        if mass != (heads, 1, slots):
            raise VerifyException(f"mass must be [{heads}, 1, {slots}], got {list(mass)}")
        _, features = check_rank("rows", self.key_rows, 2)
        check_equal("columns of the rows", features, heads * dim, "heads * head_dim of the cache")
        _, columns = check_rank("query", self.query, 2)
        if columns % features:
            raise VerifyException(
                f"columns of the query must be a multiple of {features}, got {columns}"
            )
        if not 0 < self.budget.value.data < slots:
            raise VerifyException(
                f"a budget of {self.budget.value.data} of {slots} slots; accepted: 1 to {slots - 1}"
            )

    def reference(
        self,
        query: Array,
        key_rows: Array,
        value_rows: Array,
        keys: KvArray,
        values: KvArray,
        mass: Array,
        position: int,
    ) -> tuple[Array, KvArray, KvArray, Array]:
        """query f32 [n, Hq*D]; rows f32 [n, H*D]; keys [H, D, S], values [H, S, D], mass
        [H, 1, S]."""
        state = keys, values, mass[:, 0]
        numbers = {"budget": self.budget.value.data, "scale": self.scale.value.data}
        out, new = retain(query, (key_rows, value_rows), state, position, **numbers)
        return (out, *new[:2], new[2][:, None])
