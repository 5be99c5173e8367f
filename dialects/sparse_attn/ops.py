"""Attention over a key-value cache, whole or in parts, and the append that fills the cache."""

import math
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import (
    Float16Type,
    Float32Type,
    FloatAttr,
    IndexType,
    StringAttr,
    TensorType,
    UnitAttr,
    i32,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    BaseAttr,
    IRDLOperation,
    VarConstraint,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.numpy_ref import attention as ref
from nybble.dialects.numpy_ref import merge as joining
from nybble.dialects.numpy_ref.arrays import KvArray
from nybble.dialects.numpy_ref.rope import append_kv
from nybble.dialects.shapes import check_equal, check_rank
from nybble.dialects.sparse_attn.cache_type import CacheType, cache_shape, format_of, other_side
from nybble.dialects.sparse_attn.kv import KEYS, VALUES, block_of, products
from nybble.dialects.sparse_attn.mask_attr import MaskAttr
from nybble.dialects.sparse_attn.masks import MaskError, dense
from nybble.dialects.sparse_attn.masks.blocks import selections_of
from nybble.dialects.sparse_attn.pages import is_of_each_row

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
F32Tensor = TensorType.constr(Float32Type())
PlainCache = TensorType.constr(BaseAttr(Float32Type) | BaseAttr(Float16Type))
CacheTensor = PlainCache | BaseAttr(CacheType)
ListTensor = TensorType.constr(i32)
FloatProp = FloatAttr[Float32Type]
LOG2_E = math.log2(math.e)
"""Exponentials are of base 2, and queries are multiplied by this before they are rounded."""
SOFTMAX = ("online", "two_pass", "unified")
"""Ways to a softmax, the first being the default. online: a running maximum, block by block;
two_pass: the maximum first; unified: a fixed one, and again online where that overflows
(FlashDecoding++, arXiv:2311.01282)."""


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
        heads, _, dim = cache_shape(self.cache)
        _, features = check_rank("rows", self.rows, 2)
        check_equal("columns of the rows", features, heads * dim, "heads * head_dim of the cache")
        if self.result.type != self.cache.type:
            raise VerifyException("the result must have the type of the cache")

    def reference(self, cache: KvArray, rows: Array, position: int) -> tuple[KvArray]:
        """cache [H, C, D]; rows f32 [n, H*D]; raises ValueError past the end of the context.

        The value of a cache with codes is what its tokens were before: when they become codes
        follows from where a query stands.
        """
        exact = format_of(self.cache.type).rounded(rows)
        return (append_kv(cache, exact.astype(np.float32), position),)


def check_attention(op: "AttentionOp | PartialOp") -> None:
    """Raise unless queries, caches, mask and lists fit each other."""
    heads, context, dim = cache_shape(op.keys)
    cache_shape(op.values)
    _, features = check_rank("query", op.query, 2)
    check_sides(op.keys.type, op.values.type)
    if features % (heads * dim):
        raise VerifyException(
            f"columns of the query must be a multiple of kv_heads * head_dim = {heads * dim},"
            f" got {features}"
        )
    try:
        op.mask.mask.check(context, heads)
    except MaskError as error:
        raise VerifyException(str(error)) from error
    check_lists(op.mask, op.selected, heads)


def check_sides(keys: Attribute, values: Attribute) -> None:
    """Raise unless two types are those of keys and values that go together."""
    if isinstance(keys, CacheType):
        if keys.side.data != KEYS or other_side(keys) != values:
            raise VerifyException(f"keys {keys} go with values {other_side(keys)}, got {values}")
    elif keys != values:
        raise VerifyException("keys and values must have the same type")


def check_lists(mask: MaskAttr, lists: Sequence[SSAValue], heads: int) -> None:
    """Raise unless there is a list [heads, rows, entries] for each selection of a mask."""
    selections = selections_of(mask.mask)
    check_equal("number of lists", len(lists), len(selections), "selections of the mask")
    for selection, entries in zip(selections, lists, strict=True):
        of, _, count = check_rank("a list", entries, 3)
        check_equal(f"heads of the list of {selection}", of, heads, "heads of the cache")
        if selection.count is not None:
            check_equal(f"entries of the list of {selection}", count, selection.count, "its count")


def seen_by(
    op: "AttentionOp | PartialOp", query: Array, keys: KvArray, position: int, lists: Sequence[Ints]
) -> npt.NDArray[np.bool_]:
    """What each row of an attention sees: bool [kv_heads, n, position + n]."""
    rows = len(query)
    places = position + np.arange(rows)
    each = [is_of_each_row(one) for one in op.selected]
    return dense(op.mask.mask, places, np.arange(position + rows), len(keys), lists, each)


def part_of(
    op: "AttentionOp | PartialOp",
    query: Array,
    caches: tuple[KvArray, KvArray],
    position: int,
    seen: npt.NDArray[np.bool_],
) -> joining.Part:
    """The part of what `seen` sees, in f64; of caches with codes that of codes and all others."""
    cap = None if op.softcap is None else op.softcap.value.data
    kv, (keys, values) = format_of(op.keys.type), caches
    attend = partial(ref.partial, query, pos=position, scale=op.scale.value.data, softcap=cap)
    if not kv.is_coded:
        return attend(keys, values, seen=seen)
    first = kv.boundaries(position + np.arange(len(query)))
    coded = kv.is_code(np.arange(position + len(query)), first[:, None])
    last = int(first.max(initial=0))
    meant = kv.decoded(KEYS, keys, last), kv.decoded(VALUES, values, last)
    codes = partial(attend, *meant, seen=seen & coded)
    if kv.integers and last:
        scale = op.scale.value.data
        factor = scale * LOG2_E if cap is None else scale / cap
        rounded = products.scores(kv, query, keys, last, factor) * (scale / factor)
        block = block_of(kv.page, (one.size for one in selections_of(op.mask.mask)))
        weighted = partial(products.weighted, kv, values=values, tokens=last, block=block)
        codes = partial(codes, scores=rounded, weighted=weighted)
    return joining.merge(codes(), attend(keys, values, seen=seen & ~coded))


@irdl_op_definition
class AttentionOp(IRDLOperation):
    """Softmax attention of query rows at `position`.. over the first keys of a cache.

    Query heads are grouped over the cache's heads (GQA): query head h reads cache head
    h * kv_heads / heads. Scores are `scale * q.k`, squashed to `softcap * tanh(s / softcap)`
    where a soft cap is given, then masked; a row that sees no key is 0. At position -1 nothing is
    cached, and a row sees no key. `selected` has a list for each selection of the mask, see
    `masks.selected`.
    """

    name = "sparse_attn.attention"
    query = operand_def(F32Tensor)
    keys = operand_def(CacheTensor)
    values = operand_def(CacheTensor)
    position = operand_def(IndexType())
    selected = var_operand_def(ListTensor)
    mask = prop_def(MaskAttr)
    scale = prop_def(FloatProp)
    softcap = opt_prop_def(FloatProp)
    softmax = opt_prop_def(StringAttr)
    result = result_def(F32Tensor)
    traits = traits_def(Pure())
    assembly_format = (
        "$query `,` $keys `,` $values `at` $position `mask` $mask "
        "(`selected` $selected^ `:` type($selected))? `scale` $scale "
        "(`softcap` $softcap^)? (`softmax` $softmax^)? attr-dict `:` "
        "type($query) `,` type($keys) `,` type($values) `->` type($result)"
    )

    def verify_(self) -> None:
        check_attention(self)
        if self.result.type != self.query.type:
            raise VerifyException("the result must have the type of the query")
        if self.softmax is not None and self.softmax.data not in SOFTMAX:
            raise VerifyException(
                f'unknown softmax "{self.softmax.data}"; accepted: {", ".join(SOFTMAX)}'
            )

    @property
    def span(self) -> int | None:
        """How many recent keys a query sees at most."""
        return self.mask.mask.span

    def reference(
        self, query: Array, keys: KvArray, values: KvArray, position: int, *lists: Ints
    ) -> tuple[Array]:
        """query f32 [n, Hq*D]; keys, values [Hkv, C, D]; lists i32; f32 [n, Hq*D]."""
        seen = seen_by(self, query, keys, position, lists)
        _, total, acc = part_of(self, query, (keys, values), position, seen)
        return (joining.finish(total, acc).reshape(query.shape).astype(np.float32),)


@irdl_op_definition
class PartialOp(IRDLOperation):
    """An attention before its division: what `merge` joins over disjoint keys, `finish` divides.

    `max` and `sum` [n, heads] are the largest score and the sum of exp(score - max), `acc` [n,
    heads * head_dim] that of exp(score - max) times the values. With `shared` the rows are of
    different texts that have these keys in common (Hydragen, arXiv:2402.05099): all of them stand
    at `position`. The part of an empty cache, at -1, is (-inf, 0, 0), which `merge` joins with
    another to that other.
    """

    name = "sparse_attn.partial"
    query = operand_def(F32Tensor)
    keys = operand_def(CacheTensor)
    values = operand_def(CacheTensor)
    position = operand_def(IndexType())
    selected = var_operand_def(ListTensor)
    mask = prop_def(MaskAttr)
    scale = prop_def(FloatProp)
    softcap = opt_prop_def(FloatProp)
    shared = opt_prop_def(UnitAttr)
    max = result_def(F32Tensor)
    sum = result_def(F32Tensor)
    acc = result_def(F32Tensor)
    traits = traits_def(Pure())
    assembly_format = (
        "(`shared` $shared^)? $query `,` $keys `,` $values `at` $position `mask` $mask "
        "(`selected` $selected^ `:` type($selected))? `scale` $scale (`softcap` $softcap^)? "
        "attr-dict `:` type($query) `,` type($keys) `,` type($values) `->` "
        "type($max) `,` type($sum) `,` type($acc)"
    )

    def verify_(self) -> None:
        check_attention(self)
        check_part(self.max, self.sum, self.acc)
        if self.acc.type != self.query.type:
            raise VerifyException("acc must have the type of the query")

    def reference(
        self, query: Array, keys: KvArray, values: KvArray, position: int, *lists: Ints
    ) -> tuple[Array, Array, Array]:
        """As of AttentionOp; max, sum f32 [n, Hq]; acc f32 [n, Hq*D]."""
        caches = keys, values
        if self.shared is None:
            seen = seen_by(self, query, keys, position, lists)
            part = part_of(self, query, caches, position, seen)
        else:
            seen = seen_by(self, query[:1], keys, position, lists)
            rows = [part_of(self, row[None], caches, position, seen) for row in query]
            part = tuple(np.concatenate(parts) for parts in zip(*rows, strict=True))
        largest, total, acc = (one.astype(np.float32) for one in part)
        return largest, total, acc.reshape(query.shape)


def check_part(largest: SSAValue, total: SSAValue, acc: SSAValue) -> int:
    """Raise unless max, sum and acc are of as many rows and heads; the columns of acc."""
    rows, heads = check_rank("max", largest, 2)
    if total.type != largest.type:
        raise VerifyException("sum must have the type of max")
    of, columns = check_rank("acc", acc, 2)
    check_equal("rows of acc", of, rows, "rows of max")
    if heads < 1 or columns % heads:
        raise VerifyException(f"acc has {columns} columns for {heads} heads")
    return columns


@irdl_op_definition
class MergeOp(IRDLOperation):
    """The part of the union of two disjoint sets of keys, of their parts; see `partial`.

    Associative and commutative up to rounding, so that parts may be joined as a tree.
    """

    name = "sparse_attn.merge"
    ROW: ClassVar = VarConstraint("ROW", F32Tensor)
    ACC: ClassVar = VarConstraint("ACC", F32Tensor)
    left_max = operand_def(ROW)
    left_sum = operand_def(ROW)
    left_acc = operand_def(ACC)
    right_max = operand_def(ROW)
    right_sum = operand_def(ROW)
    right_acc = operand_def(ACC)
    max = result_def(ROW)
    sum = result_def(ROW)
    acc = result_def(ACC)
    traits = traits_def(Pure())
    assembly_format = (
        "`(` $left_max `,` $left_sum `,` $left_acc `)` `,` "
        "`(` $right_max `,` $right_sum `,` $right_acc `)` attr-dict `:` "
        "type($max) `,` type($acc)"
    )

    def verify_(self) -> None:
        check_part(self.max, self.sum, self.acc)

    def reference(self, *parts: Array) -> tuple[Array, Array, Array]:
        """Left and right max, sum [n, H] and acc [n, H*D], f32; joined in f64."""
        left, right = (_part(*parts[first : first + 3]) for first in (0, 3))
        largest, total, acc = (one.astype(np.float32) for one in joining.merge(left, right))
        return largest, total, acc.reshape(parts[2].shape)


@irdl_op_definition
class FinishOp(IRDLOperation):
    """The attention of a part: `acc / sum`, 0 where no key was seen."""

    name = "sparse_attn.finish"
    T: ClassVar = VarConstraint("T", F32Tensor)
    sum = operand_def(F32Tensor)
    acc = operand_def(T)
    result = result_def(T)
    traits = traits_def(Pure())
    assembly_format = "$acc `by` $sum attr-dict `:` type($acc) `by` type($sum)"

    def verify_(self) -> None:
        check_part(self.sum, self.sum, self.acc)

    def reference(self, total: Array, acc: Array) -> tuple[Array]:
        """sum f32 [n, H]; acc f32 [n, H*D]."""
        _, wide, parts = _part(total, total, acc)
        return (joining.finish(wide, parts).astype(np.float32).reshape(acc.shape),)


def _part(largest: Array, total: Array, acc: Array) -> joining.Part:
    wide = acc.astype(np.float64).reshape(*total.shape, -1)
    return largest.astype(np.float64), total.astype(np.float64), wide
