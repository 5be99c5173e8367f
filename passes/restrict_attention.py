"""Pass `restrict-attention`: let the attentions of a function see less than they would.

Before:

```mlir
func.func @f(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf32>, %p: index) -> tensor<?x64xf32> {
  %a = sparse_attn.attention %q, %k, %k at %p mask <"window(100)"> scale 2.500000e-01 :
      tensor<?x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<?x64xf32>
  func.return %a : tensor<?x64xf32>
}
```

After with `restrict-attention{function=f mask="sink(4)+window(32)"}`:

```mlir
func.func @f(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf32>, %p: index) -> tensor<?x64xf32> {
  %a = sparse_attn.attention %q, %k, %k at %p mask <"window(100)&(sink(4)+window(32))">
      scale 2.500000e-01 : tensor<?x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> ->
      tensor<?x64xf32>
  func.return %a : tensor<?x64xf32>
}
```

The mask takes the place of a causal one, and is intersected with any other.

Does not handle: masks with selections, whose lists nothing makes yet.
"""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.traits import SymbolTable

from nybble.dialects.errors import NybbleError
from nybble.dialects.sparse_attn.mask_attr import MaskAttr
from nybble.dialects.sparse_attn.masks import Causal, Intersection, Mask, MaskError, parse
from nybble.dialects.sparse_attn.ops import AttentionOp

STATIC = (
    "masks of positions (causal, window, sink, streaming, stride, heads, +, &), also with "
    "pages(size,count) among them; or heavy(budget,recent), alisa(budget,recent), "
    "locret(budget,recent) or windowkv(size,count,recent,layers) alone"
)


@dataclass(frozen=True)
class RestrictAttention(ModulePass):
    """Restrict one function; see the module's text.

    function: its name. mask: in the spelling of masks.
    """

    name = "restrict-attention"
    function: str
    mask: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        mask = static_mask(self.mask)
        function = SymbolTable.lookup_symbol(op, self.function)
        if not isinstance(function, func.FuncOp):
            raise NybbleError(f"no function '{self.function}' in the module")
        for attention in [found for found in function.walk() if isinstance(found, AttentionOp)]:
            attention.mask = MaskAttr.of(restricted(attention.mask.mask, mask))


def static_mask(text: str) -> Mask:
    """The mask of a text, which may have no selections; raises MaskError."""
    mask = parse(text)
    check_static(mask)
    return mask


def check_static(mask: Mask) -> None:
    """Raise MaskError for a mask that needs lists."""
    if mask.selections:
        raise MaskError(
            f"{mask.selections[0]} is chosen anew for each token, which no model is compiled for",
            accepted=STATIC,
        )


def restricted(own: Mask, mask: Mask) -> Mask:
    """What both masks see."""
    return mask if isinstance(own, Causal) else Intersection((own, mask))
