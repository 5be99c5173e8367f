"""Pass `retain-tokens`: let the caches of a function keep a number of tokens, not the whole text.

Before:

```mlir
func.func @f(%q: tensor<?x16xf32>, %kn: tensor<?x16xf32>, %vn: tensor<?x16xf32>,
             %k: tensor<1x128x16xf32>, %v: tensor<1x128x16xf32>, %p: index)
             -> (tensor<?x16xf32>, tensor<1x128x16xf32>, tensor<1x128x16xf32>) {
  %ka = sparse_attn.append_kv %kn into %k at %p :
      tensor<?x16xf32> into tensor<1x128x16xf32> -> tensor<1x128x16xf32>
  %va = sparse_attn.append_kv %vn into %v at %p :
      tensor<?x16xf32> into tensor<1x128x16xf32> -> tensor<1x128x16xf32>
  %a = sparse_attn.attention %q, %ka, %va at %p mask <"causal"> scale 2.500000e-01 :
      tensor<?x16xf32>, tensor<1x128x16xf32>, tensor<1x128x16xf32> -> tensor<?x16xf32>
  func.return %a, %ka, %va : tensor<?x16xf32>, tensor<1x128x16xf32>, tensor<1x128x16xf32>
}
```

After with `retain-tokens{function=f budget=8 recent=24}`:

```mlir
func.func @f(%q: tensor<?x16xf32>, %kn: tensor<?x16xf32>, %vn: tensor<?x16xf32>,
             %k: tensor<1x16x32xf32>, %v: tensor<1x32x16xf32>, %p: index, %0: tensor<1x1x32xf32>,
             %1: tensor<1x1x128xi32>)
             -> (tensor<?x16xf32>, tensor<1x16x32xf32>, tensor<1x32x16xf32>, tensor<1x1x32xf32>,
                 tensor<1x1x128xi32>) {
  %a, %ka, %va, %2, %3 = sparse_attn.retain %q, %kn, %vn into %k, %v, %1 at %p by "accumulated" %0
      budget 8 : i64 size 1 : i64 scale 2.500000e-01 :
      tensor<?x16xf32>, tensor<?x16xf32> into tensor<1x16x32xf32>, tensor<1x32x16xf32>,
      tensor<1x1x128xi32> by tensor<1x1x32xf32> -> tensor<1x1x32xf32>, tensor<1x1x128xi32>
  func.return %a, %ka, %va, %2, %3 : tensor<?x16xf32>, tensor<1x16x32xf32>, tensor<1x32x16xf32>,
      tensor<1x1x32xf32>, tensor<1x1x128xi32>
}
```

The scores of tokens and where they went are further arguments and results. With `by=last` the
attention of the last `recent` queries counts. With `by=learned` a scorer of `hidden` features is
put before the rotations (Locret, arXiv:2410.01805): its weights are three further arguments for
queries, keys and values, and one for its output. With `by=""` the moves of another function are an
argument, and are repeated.

Does not handle: masks of the model's own, soft caps, caches with codes, kinds of softmax.
"""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, TensorType, f32, i32, i64
from xdsl.ir import Block, BlockArgument, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.traits import SymbolTable

from nybble.dialects.errors import NybbleError
from nybble.dialects.locations import location_of
from nybble.dialects.shapes import tensor_shape
from nybble.dialects.sparse_attn.masks import Causal
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp
from nybble.dialects.sparse_attn.retain import ACCUMULATED, LAST, LEARNED, SCORES, RetainOp
from nybble.passes.score_tokens import score_tokens


@dataclass(frozen=True)
class RetainTokens(ModulePass):
    """Evict in one function; see the module's text.

    function: its name. budget, recent: tokens that are kept for their score, and last ones. by: one
    of SCORES, or empty. size: tokens that go together. hidden: features of a learned scorer.
    """

    name = "retain-tokens"
    function: str
    budget: int
    recent: int
    by: str = ACCUMULATED
    size: int = 1
    hidden: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.by not in ("", *SCORES):
            raise NybbleError(f"unknown score '{self.by}'", accepted=", ".join(SCORES))
        function = SymbolTable.lookup_symbol(op, self.function)
        if not isinstance(function, func.FuncOp):
            raise NybbleError(f"no function '{self.function}' in the module")
        for attention in [found for found in function.walk() if isinstance(found, AttentionOp)]:
            retain_tokens(function, attention, self)
        function.update_function_type()


def retain_tokens(func_: func.FuncOp, attention: AttentionOp, choice: RetainTokens) -> None:
    """Put the op that evicts in the place of an attention and its appends."""
    keys, values = (_appended(attention, side) for side in ("keys", "values"))
    heads, context, dim = tensor_shape(keys.cache)
    slots = choice.budget + choice.recent
    element = keys.cache.type
    assert isinstance(element, TensorType)
    kind = element.get_element_type()
    Rewriter.replace_value_with_new_type(keys.cache, TensorType(kind, (heads, dim, slots)))
    Rewriter.replace_value_with_new_type(values.cache, TensorType(kind, (heads, slots, dim)))
    rows, caches, block = (keys.rows, values.rows), (keys.cache, values.cache), func_.body.block
    scores: list[SSAValue] = []
    if choice.by == LEARNED:
        scores = [score_tokens(block, (attention.query, *rows), heads, choice.hidden)]
    queries = choice.recent if choice.by == LAST else 0
    mass: list[SSAValue] = []
    if choice.by:
        mass = [_argument(block, TensorType(f32, (heads, 1 + queries, slots)))]
    moves = _argument(block, TensorType(i32, (heads, 1, context)))
    state = [one.type for one in (*mass, moves)] if mass else []
    by = {"by": StringAttr(choice.by)} if choice.by else {}
    retained = RetainOp(
        operands=[attention.query, *rows, *caches, moves, attention.position, mass, scores],
        result_types=[attention.query.type, *(one.type for one in caches), state],
        properties={
            "budget": IntegerAttr(choice.budget, i64),
            "size": IntegerAttr(choice.size, i64),
            "scale": attention.scale,
            **by,
        },
    )
    retained.location = attention.location
    Rewriter.insert_op(retained, InsertPoint.before(attention))
    Rewriter.replace_op(attention, [], [retained.result])
    Rewriter.replace_op(keys, [], [retained.new_keys])
    Rewriter.replace_op(values, [], [retained.new_values])
    terminator = block.last_op
    assert isinstance(terminator, func.ReturnOp)
    Rewriter.replace_op(terminator, func.ReturnOp(*terminator.operands, *retained.new_state))


def _argument(block: Block, type_: TensorType) -> BlockArgument:
    return block.insert_arg(type_, len(block.args))


def _appended(attention: AttentionOp, side: str) -> AppendKVOp:
    """The append that fills a cache of the attention; raises NybbleError where it cannot evict."""
    append = attention.keys.owner if side == "keys" else attention.values.owner
    fault = None
    if not isinstance(append, AppendKVOp) or not isinstance(append.cache, BlockArgument):
        fault = f"its {side} are no argument that tokens are appended to"
    elif not isinstance(append.cache.type, TensorType):
        fault = f"its {side} are {append.cache.type}; accepted: tensors of f32 or f16"
    elif not isinstance(attention.mask.mask, Causal):
        fault = f'it has the mask "{attention.mask.mask}"; accepted: "causal"'
    elif attention.softcap is not None or attention.softmax is not None:
        fault = "it has a soft cap or a kind of softmax; accepted: neither"
    elif _other_readers(append, attention):
        fault = f"something else reads its {side}"
    if fault is None:
        assert isinstance(append, AppendKVOp)
        return append
    raise NybbleError(f"an attention cannot evict: {fault}", location=location_of(attention))


def _other_readers(append: AppendKVOp, attention: AttentionOp) -> bool:
    readers = {use.operation for use in append.result.uses} - {attention}
    return any(not isinstance(one, func.ReturnOp) for one in readers)
