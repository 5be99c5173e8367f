"""What becomes of the attention of a model's layers: a policy, laid over its graph."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.printer import Printer
from xdsl.traits import SymbolTable

from nybble.dialects.sparse_attn.kv import parse as parse_kv
from nybble.dialects.sparse_attn.masks import Causal, Mask, Selected, parse_policy
from nybble.frontend.graph import Argument, ModelGraph, Role
from nybble.frontend.retaining import (
    Variant,
    arguments_of,
    check_retaining,
    evicts,
    pass_of,
    variants,
)
from nybble.passes.restrict_attention import RestrictAttention, check_static
from nybble.passes.retain_tokens import RetainTokens
from nybble.passes.select_pages import SelectPages, check_pages, chooses_pages

SEPARATOR = "_mask_"
FOLLOWS = "_follows"
BOUNDS = Argument("bounds", Role.STATE)


def with_policy(graph: ModelGraph, text: str, hidden: int = 0) -> ModelGraph:
    """The graph with a function for each distinct layer and mask of a policy; empty: as it is.

    hidden: features of learned scorers, 0 where the model has none.
    Raises MaskError for a policy that does not fit the model, KvError for one under which no layer
    reads the codes of the cache.
    """
    if not text:
        return graph
    policy, sizes = parse_policy(text), graph.dimensions
    policy.check(sizes.layers, sizes.context, sizes.kv_heads)
    masks = [policy.mask(layer) for layer in range(sizes.layers)]
    for mask in masks:
        check_mask(mask, sizes.kv_dtype, hidden)
    parse_kv(sizes.kv_dtype).check_span(longest_span(masks))
    made = _with_functions(graph, variants(masks))
    texts = _texts(masks)
    further = {
        name: _further(variant, texts.index(str(variant.mask)))
        for name, variant in zip(made.layers, variants(masks), strict=True)
    }
    functions = {
        name: (*arguments, *further.get(name, ())) for name, arguments in made.functions.items()
    }
    return replace(made, functions=functions) if any(further.values()) else made


def _further(variant: Variant, index: int) -> tuple[Argument, ...]:
    """What a function gets as further arguments; index: of its mask among those of the model."""
    if evicts(variant.mask):
        return arguments_of(variant, index)
    return (BOUNDS,) if variant.mask.selections else ()


def _texts(masks: Sequence[Mask]) -> list[str]:
    return list(dict.fromkeys(str(mask) for mask in masks))


def check_mask(mask: Mask, kv: str, hidden: int) -> None:
    """Raise MaskError for a mask that no layer can have, KvError for a cache that cannot evict."""
    if chooses_pages(mask):
        check_pages(mask)
    elif isinstance(mask, Selected) and evicts(mask):
        check_retaining(mask, kv, hidden)
    else:
        check_static(mask)


def _with_functions(graph: ModelGraph, made: Sequence[Variant]) -> ModelGraph:
    """The graph with a function for each distinct layer and variant of its attention."""
    if len(set(made)) == 1:
        return graph
    texts = _texts([variant.mask for variant in made])
    names = [
        f"{function}{SEPARATOR}{texts.index(str(variant.mask))}{FOLLOWS * variant.follows}"
        for function, variant in zip(graph.layers, made, strict=True)
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
    return [
        RestrictAttention(name, str(one.mask))
        for name, one in _variants(graph, text).items()
        if not isinstance(one.mask, Causal) and not one.mask.selections
    ]


def selections(graph: ModelGraph, text: str, hidden: int = 0) -> list[RetainTokens | SelectPages]:
    """The passes that let layers of such a graph choose while they run, where masks say so."""
    made: list[RetainTokens | SelectPages] = []
    for name, one in _variants(graph, text).items():
        if evicts(one.mask):
            made.append(pass_of(name, one, hidden))
        elif one.mask.selections:
            made.append(SelectPages(name, str(one.mask)))
    return made


def _variants(graph: ModelGraph, text: str) -> dict[str, Variant]:
    """What is made of the attention of each function of a layer."""
    if not text:
        return {}
    policy = parse_policy(text)
    made = variants([policy.mask(layer) for layer in range(len(graph.layers))])
    return dict(zip(graph.layers, made, strict=True))


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
