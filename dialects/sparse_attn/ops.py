"""Attention over a key-value cache and the append that fills it."""

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import (
    Float16Type,
    Float32Type,
    FloatAttr,
    IndexType,
    TensorType,
)
from xdsl.irdl import (
    BaseAttr,
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.numpy_ref import attention as ref
from nybble.dialects.numpy_ref.arrays import KvArray
from nybble.dialects.numpy_ref.rope import append_kv
from nybble.dialects.shapes import check_equal, check_rank
from nybble.dialects.sparse_attn.masks import CausalMask, WindowMask

Array = npt.NDArray[np.float32]
F32Tensor = TensorType.constr(Float32Type())
CacheTensor = TensorType.constr(BaseAttr(Float32Type) | BaseAttr(Float16Type))
FloatProp = FloatAttr[Float32Type]


@irdl_op_definition
class AppendKVOp(IRDLOperation):
    """Write the rows of new tokens into a cache [heads, context, head_dim] at `position`.

    rewrite: `result = cache; result[h, position + i, :] = rows[i, h, :]`
    """

    name = "sparse_attn.append_kv"
    cache = operand_def(CacheTensor)
    rows = operand_def(F32Tensor)
    position = operand_def(IndexType())
    result = result_def(CacheTensor)
    traits = traits_def(Pure())
    assembly_format = (
        "$rows `into` $cache `at` $position attr-dict `:` type($rows) `into` type($cache)"
        " `->` type($result)"
    )

    def verify_(self) -> None:
        heads, _, dim = check_rank("cache", self.cache, 3)
        _, features = check_rank("rows", self.rows, 2)
        check_equal("columns of the rows", features, heads * dim, "heads * head_dim of the cache")
        if self.result.type != self.cache.type:
            raise VerifyException("the result must have the type of the cache")

    def reference(self, cache: KvArray, rows: Array, position: int) -> tuple[KvArray]:
        """cache [H, C, D]; rows f32 [n, H*D]; raises ValueError past the end of the context."""
        return (append_kv(cache, rows, position),)


@irdl_op_definition
class AttentionOp(IRDLOperation):
    """Softmax attention of query rows at `position`.. over the first keys of a cache.

    Query heads are grouped over the cache's heads (GQA): query head h reads cache head
    h * kv_heads / heads. Scores are `scale * q.k`, squashed to `softcap * tanh(s / softcap)`
    where a soft cap is given, then masked.
    """

    name = "sparse_attn.attention"
    query = operand_def(F32Tensor)
    keys = operand_def(CacheTensor)
    values = operand_def(CacheTensor)
    position = operand_def(IndexType())
    mask = prop_def(CausalMask | WindowMask)
    scale = prop_def(FloatProp)
    softcap = opt_prop_def(FloatProp)
    result = result_def(F32Tensor)
    traits = traits_def(Pure())
    assembly_format = (
        "$query `,` $keys `,` $values `at` $position `mask` $mask `scale` $scale "
        "(`softcap` $softcap^)? attr-dict `:` type($query) `,` type($keys) `,` type($values)"
        " `->` type($result)"
    )

    def verify_(self) -> None:
        heads, _, dim = check_rank("keys", self.keys, 3)
        check_rank("values", self.values, 3)
        _, features = check_rank("query", self.query, 2)
        if self.keys.type != self.values.type:
            raise VerifyException("keys and values must have the same type")
        if self.result.type != self.query.type:
            raise VerifyException("the result must have the type of the query")
        if features % (heads * dim):
            raise VerifyException(
                f"columns of the query must be a multiple of kv_heads * head_dim = {heads * dim},"
                f" got {features}"
            )

    @property
    def span(self) -> int | None:
        """How many recent keys a query sees at most."""
        return self.mask.span

    def reference(
        self, query: Array, keys: KvArray, values: KvArray, position: int
    ) -> tuple[Array]:
        """query f32 [n, Hq*D]; keys, values [Hkv, C, D]; f32 [n, Hq*D]."""
        cap = None if self.softcap is None else self.softcap.value.data
        scale, span = self.scale.value.data, self.span
        attended = ref.attention(
            query, keys, values, position, scale=scale, window=span, softcap=cap
        )
        return (attended,)
