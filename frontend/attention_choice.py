"""What becomes of the attention of a model's layers: a policy, laid over its graph."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.printer import Printer
from xdsl.traits import SymbolTable

from nybble.dialects.sparse_attn.kv import parse as parse_kv
from nybble.dialects.sparse_attn.masks import Causal, Mask, parse_policy
from nybble.frontend.graph import ModelGraph
from nybble.passes.restrict_attention import RestrictAttention, check_static

SEPARATOR = "_mask_"


def with_policy(graph: ModelGraph, text: str) -> ModelGraph:
    """The graph with a function for each distinct layer and mask of a policy; empty: as it is.

    Raises MaskError for a policy that does not fit the model, KvError for one under which no layer
    reads the codes of the cache.
    """
    if not text:
        return graph
    policy, sizes = parse_policy(text), graph.dimensions
    policy.check(sizes.layers, sizes.context, sizes.kv_heads)
    masks = [policy.mask(layer) for layer in range(sizes.layers)]
    for mask in masks:
        check_static(mask)
    parse_kv(sizes.kv_dtype).check_span(longest_span(masks))
    texts = list(dict.fromkeys(str(mask) for mask in masks))
    if len(texts) == 1:
        return graph
    names = [
        f"{function}{SEPARATOR}{texts.index(str(mask))}"
        for function, mask in zip(graph.layers, masks, strict=True)
    ]
    origin = dict(zip(names, graph.layers, strict=True))
    module = graph.module()
    copy_functions(module, origin)
    kept = {name: one for name, one in graph.functions.items() if name not in graph.layers}
    functions = {**kept, **{name: graph.functions[source] for name, source in origin.items()}}
    stream = StringIO()
    Printer(stream=stream, print_generic_format=True).print_op(module)
    return replace(graph, text=stream.getvalue(), functions=functions, layers=tuple(names))


def longest_span(masks: Sequence[Mask]) -> int | None:
    """How many most recent keys a query sees in the layer where that is most; None for all."""
    spans = [mask.span for mask in masks]
    known = [span for span in spans if span is not None]
    return max(known) if len(known) == len(spans) else None


def restrictions(graph: ModelGraph, text: str) -> list[RestrictAttention]:
    """The passes that set the masks of a policy in a graph that `with_policy` made."""
    if not text:
        return []
    policy = parse_policy(text)
    masks = {name: policy.mask(layer) for layer, name in enumerate(graph.layers)}
    return [
        RestrictAttention(name, str(mask))
        for name, mask in masks.items()
        if not isinstance(mask, Causal)
    ]


def copy_functions(module: ModuleOp, origin: Mapping[str, str]) -> None:
    """Replace functions by copies: name of a copy -> that of its original."""
    originals: dict[str, FuncOp] = {}
    for source in origin.values():
        found = SymbolTable.lookup_symbol(module, source)
        assert isinstance(found, FuncOp)
        originals[source] = found
    for name, source in origin.items():
        copy = originals[source].clone()
        copy.sym_name = StringAttr(name)
        module.body.block.add_op(copy)
    for function in originals.values():
        function.detach()
        function.erase()
