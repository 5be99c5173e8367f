"""Pass `select-pages`: let the attentions of a function look at pages that each query chooses.

Before:

```mlir
func.func @f(%q: tensor<?x16xf32>, %kn: tensor<?x16xf32>, %k: tensor<1x128x16xf32>,
             %v: tensor<1x128x16xf32>, %p: index) -> (tensor<?x16xf32>, tensor<1x128x16xf32>) {
  %ka = sparse_attn.append_kv %kn into %k at %p :
      tensor<?x16xf32> into tensor<1x128x16xf32> -> tensor<1x128x16xf32>
  %a = sparse_attn.attention %q, %ka, %v at %p mask <"causal"> scale 2.500000e-01 :
      tensor<?x16xf32>, tensor<1x128x16xf32>, tensor<1x128x16xf32> -> tensor<?x16xf32>
  func.return %a, %ka : tensor<?x16xf32>, tensor<1x128x16xf32>
}
```

After with `select-pages{function=f mask="pages(32,2)+sink(4)"}`:

```mlir
func.func @f(%q: tensor<?x16xf32>, %kn: tensor<?x16xf32>, %k: tensor<1x128x16xf32>,
             %v: tensor<1x128x16xf32>, %p: index, %0: tensor<1x8x32xf32>) -> (tensor<?x16xf32>,
             tensor<1x128x16xf32>, tensor<1x8x32xf32>) {
  %ka = sparse_attn.append_kv %kn into %k at %p :
      tensor<?x16xf32> into tensor<1x128x16xf32> -> tensor<1x128x16xf32>
  %1 = sparse_attn.append_bounds %kn into %0 at %p size 16 : i64 :
      tensor<?x16xf32> into tensor<1x8x32xf32>
  %2 = sparse_attn.select_pages %q, %1 at %p size 32 : i64 parts 2 : i64 :
      tensor<?x16xf32>, tensor<1x8x32xf32> -> tensor<1x?x2xi32>
  %a = sparse_attn.attention %q, %ka, %v at %p mask <"pages(32,2)+sink(4)"> selected %2 :
      tensor<1x?x2xi32> scale 2.500000e-01 :
      tensor<?x16xf32>, tensor<1x128x16xf32>, tensor<1x128x16xf32> -> tensor<?x16xf32>
  func.return %a, %ka, %1 : tensor<?x16xf32>, tensor<1x128x16xf32>, tensor<1x8x32xf32>
}
```

The bounds of keys are a further argument and result; all masks `pages(..)` choose by those of PART
keys. As in `restrict-attention`, any other mask of the attention is intersected.

Does not handle: other selections; keys that nothing is appended to.
"""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, TensorType, f32, i32, i64
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.traits import SymbolTable

from nybble.dialects.errors import NybbleError
from nybble.dialects.locations import location_of
from nybble.dialects.shapes import tensor_shape
from nybble.dialects.sparse_attn.cache_type import cache_shape
from nybble.dialects.sparse_attn.mask_attr import MaskAttr
from nybble.dialects.sparse_attn.masks import Mask, MaskError, Selected, parse
from nybble.dialects.sparse_attn.masks.blocks import selections_of
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp
from nybble.dialects.sparse_attn.pages import AppendBoundsOp, SelectPagesOp
from nybble.passes.restrict_attention import restricted

PAGES = "pages"
PART = 16
"""Keys that bounds are of; pages are of whole parts."""


@dataclass(frozen=True)
class SelectPages(ModulePass):
    """Choose pages in one function; see the module's text.

    function: its name. mask: in the spelling of masks, with one `pages(..)` or more.
    """

    name = "select-pages"
    function: str
    mask: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        mask = parse(self.mask)
        check_pages(mask)
        function = SymbolTable.lookup_symbol(op, self.function)
        if not isinstance(function, func.FuncOp):
            raise NybbleError(f"no function '{self.function}' in the module")
        for attention in [found for found in function.walk() if isinstance(found, AttentionOp)]:
            select_pages(function, attention, mask)
        function.update_function_type()


def chooses_pages(mask: Mask) -> bool:
    """Whether all selections of a mask are pages, and there is one."""
    found = selections_of(mask)
    return bool(found) and all(one.name == PAGES for one in found)


def check_pages(mask: Mask) -> None:
    """Raise MaskError for a mask with other selections, or pages of parts that are not whole."""
    if not chooses_pages(mask):
        raise MaskError(f"{mask} chooses no pages, or more than that", accepted="pages(size,count)")
    for one in selections_of(mask):
        if one.size % PART:
            raise MaskError(f"{one} has pages of {one.size} keys", accepted=f"a multiple of {PART}")


def select_pages(function: func.FuncOp, attention: AttentionOp, mask: Mask) -> None:
    """Give an attention the mask, and the lists that it needs."""
    append = attention.keys.owner
    if not isinstance(append, AppendKVOp) or attention.selected:
        raise NybbleError(
            "an attention whose pages cannot be chosen: it has lists, or no keys are appended",
            location=location_of(attention),
        )
    heads, context, dim = cache_shape(attention.keys)
    block, before = function.body.block, InsertPoint.before(attention)
    bounds = block.insert_arg(
        TensorType(f32, (heads, -(-context // PART), 2 * dim)), len(block.args)
    )
    added = AppendBoundsOp(
        operands=[append.rows, bounds, attention.position],
        result_types=[bounds.type],
        properties={"size": IntegerAttr(PART, i64)},
    )
    Rewriter.insert_op(added, before)
    lists: list[SSAValue] = []
    for one in selections_of(mask):
        chosen = _chosen(attention, added.result, one)
        Rewriter.insert_op(chosen, before)
        lists.append(chosen.result)
    seeing = AttentionOp(
        operands=[*attention.operands[:4], lists],
        result_types=[attention.result.type],
        properties={
            **attention.properties,
            "mask": MaskAttr.of(restricted(attention.mask.mask, mask)),
        },
    )
    for op in (added, seeing):
        op.location = attention.location
    Rewriter.replace_op(attention, seeing)
    terminator = block.last_op
    assert isinstance(terminator, func.ReturnOp)
    Rewriter.replace_op(terminator, func.ReturnOp(*terminator.operands, added.result))


def _chosen(attention: AttentionOp, bounds: SSAValue, one: Selected) -> SelectPagesOp:
    heads, rows = tensor_shape(bounds)[0], tensor_shape(attention.query)[0]
    made = SelectPagesOp(
        operands=[attention.query, bounds, attention.position],
        result_types=[TensorType(i32, (heads, rows, one.count or 1))],
        properties={
            "size": IntegerAttr(one.size, i64),
            "parts": IntegerAttr(one.size // PART, i64),
        },
    )
    made.location = attention.location
    return made
