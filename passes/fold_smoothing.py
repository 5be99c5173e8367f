"""Pass `fold-smoothing`: give channels of activations less weight and those of matrices more.

Before:

```mlir
func.func @f(%h: tensor<?x64xf32>,
    %g: tensor<64xf32> {nybble.weight = "norm.weight"},
    %w: !lowbit.tensor<96x64, "w4g32"> {nybble.weight = "gate.weight"}) -> tensor<?x96xf32> {
  %n = fused.rms_norm %h, %g eps 1.000000e-05 : tensor<?x64xf32>, tensor<64xf32> ->
      tensor<?x64xf32>
  %a = mpgemm.matmul %n, %w : tensor<?x64xf32>, !lowbit.tensor<96x64, "w4g32"> -> tensor<?x96xf32>
  func.return %a : tensor<?x96xf32>
}
```

After:

```mlir
func.func @f(%h: tensor<?x64xf32>,
    %g: tensor<64xf32> {nybble.weight = "norm.weight",
      nybble.prepare = [#lowbit.unscale<columns, "smooth.norm">]},
    %w: !lowbit.tensor<96x64, "w4g32"> {nybble.weight = "gate.weight",
      nybble.prepare = [#lowbit.scale<columns, "smooth.norm">]}) -> tensor<?x96xf32> {
  %n = fused.rms_norm %h, %g eps 1.000000e-05 : tensor<?x64xf32>, tensor<64xf32> ->
      tensor<?x64xf32>
  %a = mpgemm.matmul %n, %w : tensor<?x64xf32>, !lowbit.tensor<96x64, "w4g32"> -> tensor<?x96xf32>
  func.return %a : tensor<?x96xf32>
}
```

`(x / s) (s W)` is `x W`; a calibration (`frontend.calibration`) finds the vectors s, whose names
begin with "smooth.". Division by s is folded where that is exact:

- into the weight of a norm that products alone read (q, k, v; gate, up; head);
- into the rows of v_proj before o_proj. Each head of values serves several heads of queries, so
  that there are two vectors of one content, "smooth.<v_proj>" and, repeated, "smooth.<o_proj>";
- into the rows of up_proj before down_proj, as the gated product is linear in `up`.

Does not handle: a product behind an operator that keeps channels apart in other ways, such as the
one behind `fused.hadamard`, which is left as it is.

SmoothQuant+: arXiv:2312.03788.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from nybble.dialects.fused.ops import GluOp, RmsNormOp
from nybble.dialects.lowbit.steps import PlusOneStep, ScaleStep, UnscaleStep
from nybble.dialects.mpgemm.ops import MatmulOp
from nybble.dialects.shapes import tensor_shape
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp
from nybble.passes.preparation import block_functions, only_products, prepare, source_of, users

PREFIX = "smooth."


@dataclass(frozen=True)
class Site:
    """Products that read one activation, and what its channels can be divided in.

    name: of the vector that the products' columns are multiplied by. heads: for values of attention
    (heads of values, heads of queries), else (1, 1).
    """

    name: str
    producer: RmsNormOp | MatmulOp
    products: Sequence[MatmulOp]
    heads: tuple[int, int] = (1, 1)

    @property
    def producer_name(self) -> str:
        """Of the vector that the producer is divided by."""
        return self.name if self.heads == (1, 1) else f"{PREFIX}{source_of(self.producer.weight)}"


@dataclass(frozen=True)
class FoldSmoothing(ModulePass):
    """Note on weights which vectors they are multiplied and divided by; see the module's text.

    only: names of the functions to change; all of them without.
    """

    name = "fold-smoothing"
    only: tuple[str, ...] = ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in block_functions(op):
            if not self.only or function.sym_name.data in self.only:
                for site in list(sites(function)):
                    fold(site)


def sites(function: func.FuncOp) -> Iterator[Site]:
    """Where an activation of a function can be smoothed, in program order."""
    for op in function.body.block.ops:
        site = None
        if isinstance(op, RmsNormOp):
            site = _norm_site(op)
        elif isinstance(op, AttentionOp):
            site = _values_site(op)
        elif isinstance(op, GluOp):
            site = _gate_site(op)
        if site is not None:
            yield site


def _norm_site(norm: RmsNormOp) -> Site | None:
    products = only_products(norm.result)
    if not products or tensor_shape(norm.weight)[0] != tensor_shape(norm.input)[1]:
        return None
    return Site(f"{PREFIX}{source_of(norm.weight)}", norm, products)


def _values_site(attention: AttentionOp) -> Site | None:
    append = attention.values.owner
    made = append.rows.owner if isinstance(append, AppendKVOp) else None
    products = only_products(attention.result)
    if not isinstance(made, MatmulOp) or len(users(made.result)) != 1 or not products:
        return None
    heads, _, size = tensor_shape(attention.values)
    queries = tensor_shape(attention.result)[1] // size
    return Site(f"{PREFIX}{source_of(products[0].weight)}", made, products, (heads, queries))


def _gate_site(glu: GluOp) -> Site | None:
    products, made = only_products(glu.result), glu.up.owner
    if not isinstance(made, MatmulOp) or len(users(glu.up)) != 1 or not products:
        return None
    return Site(f"{PREFIX}{source_of(products[0].weight)}", made, products)


def fold(site: Site) -> None:
    """Note the factors of one site on its parameters."""
    producer = site.producer
    if isinstance(producer, RmsNormOp):
        offset = [PlusOneStep()] if producer.unit_offset is not None else []
        producer.unit_offset = None
        prepare(producer.weight, *offset, UnscaleStep.get("columns", site.producer_name))
    else:
        prepare(producer.weight, UnscaleStep.get("rows", site.producer_name))
        if producer.bias is not None:
            prepare(producer.bias, UnscaleStep.get("columns", site.producer_name))
    for product in site.products:
        prepare(product.weight, ScaleStep.get("columns", site.name))
