"""What becomes of the attention of a model's layers: a policy, laid over its graph."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.printer import Printer
from xdsl.traits import SymbolTable

from nybble.dialects.sparse_attn.kv import KvError
from nybble.dialects.sparse_attn.kv import parse as parse_kv
from nybble.dialects.sparse_attn.masks import Causal, Mask, MaskError, Selected, parse_policy
from nybble.frontend.graph import Argument, ModelGraph, Role
from nybble.passes.quantize_cache import TENSORS
from nybble.passes.restrict_attention import RestrictAttention, check_static
from nybble.passes.retain_tokens import RetainTokens
from nybble.passes.select_pages import SelectPages, check_pages, chooses_pages

SEPARATOR = "_mask_"
HEAVY = "heavy"
"""The selection that evicts what it does not select (H2O)."""
SLOTS = 16
"""Tokens that are kept are a multiple of this."""
STATE = Argument("state", Role.STATE)


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
        check_mask(mask, sizes.kv_dtype)
    parse_kv(sizes.kv_dtype).check_span(longest_span(masks))
    made = _with_functions(graph, masks)
    choosing = {name for name, mask in zip(made.layers, masks, strict=True) if mask.selections}
    functions = {
        name: (*arguments, STATE) if name in choosing else arguments
        for name, arguments in made.functions.items()
    }
    return replace(made, functions=functions) if choosing else made


def evicts(mask: Mask) -> bool:
    """Whether a layer with this mask keeps a number of tokens alone."""
    return isinstance(mask, Selected) and mask.name == HEAVY


def check_mask(mask: Mask, kv: str) -> None:
    """Raise MaskError for a mask that no layer can have, KvError for a cache that cannot evict."""
    if chooses_pages(mask):
        check_pages(mask)
        return
    if not evicts(mask):
        check_static(mask)
        return
    assert isinstance(mask, Selected)
    slots = sum(mask.numbers)
    if slots % SLOTS:
        raise MaskError(f"{mask} keeps {slots} tokens", accepted=f"a multiple of {SLOTS}")
    if kv not in TENSORS:
        raise KvError(f"a cache of {kv} cannot evict, as {mask} does", accepted=", ".join(TENSORS))


def _with_functions(graph: ModelGraph, masks: Sequence[Mask]) -> ModelGraph:
    """The graph with a function for each distinct layer and mask."""
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
    return [
        RestrictAttention(name, str(mask))
        for name, mask in _masks(graph, text).items()
        if not isinstance(mask, Causal) and not mask.selections
    ]


def selections(graph: ModelGraph, text: str) -> list[RetainTokens | SelectPages]:
    """The passes that let layers of such a graph choose while they run, where masks say so."""
    made: list[RetainTokens | SelectPages] = []
    for name, mask in _masks(graph, text).items():
        if isinstance(mask, Selected) and evicts(mask):
            made.append(RetainTokens(name, *mask.numbers))
        elif mask.selections:
            made.append(SelectPages(name, str(mask)))
    return made


def _masks(graph: ModelGraph, text: str) -> dict[str, Mask]:
    """The mask of each function of a layer."""
    if not text:
        return {}
    policy = parse_policy(text)
    return {name: policy.mask(layer) for layer, name in enumerate(graph.layers)}


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
