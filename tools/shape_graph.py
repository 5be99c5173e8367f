"""The IR of a model by its shape alone, at the operators stage, as an import would give it.

Nothing is read and torch is not needed, so that a model can be asked about before it is
downloaded. Only the llama class is written down here: whatever else is imported.
"""

from collections.abc import Sequence

from xdsl.dialects.builtin import ModuleOp

from nybble.dialects.lowbit import formats
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.frontend.language_model import ENDS
from nybble.frontend.weight_rules import WeightRule, WeightRuleError, choose_formats
from nybble.tools.shape_model import EPSILON, ModelShape

_MODEL = """
func.func @embed(%ids: tensor<?xi32>, {embedding}) -> {hidden} {{
  %0 = fused.embed %ids, %embed_tokens_weight scale 1.000000e+00
    : tensor<?xi32>, {embed_type} -> {hidden}
  func.return %0 : {hidden}
}}
func.func @layer_0(%hidden: {hidden}, %pos: index, %cos: {angles}, %sin: {angles},
    %keys: {cache}, %values: {cache}, {parameters}) -> ({hidden}, {cache}, {cache}) {{
  %0 = fused.rms_norm %hidden, %input_layernorm_weight eps {eps} : {hidden}, {norm} -> {hidden}
  %1 = mpgemm.matmul %0, %self_attn_q_proj_weight : {hidden}, {q} -> {query}
  %2 = mpgemm.matmul %0, %self_attn_k_proj_weight : {hidden}, {k} -> {key}
  %3 = mpgemm.matmul %0, %self_attn_v_proj_weight : {hidden}, {v} -> {key}
  %4 = fused.rope %1, %cos, %sin at %pos : {query}, {angles} -> {query}
  %5 = fused.rope %2, %cos, %sin at %pos : {key}, {angles} -> {key}
  %6 = sparse_attn.append_kv %5 into %keys at %pos : {key} into {cache} -> {cache}
  %7 = sparse_attn.append_kv %3 into %values at %pos : {key} into {cache} -> {cache}
  %8 = sparse_attn.attention %4, %6, %7 at %pos mask <"causal"> scale {scale}
    : {query}, {cache}, {cache} -> {query}
  %9 = mpgemm.matmul %8, %self_attn_o_proj_weight : {query}, {o} -> {hidden}
  %10 = arith.addf %hidden, %9 : {hidden}
  %11 = fused.rms_norm %10, %post_attention_layernorm_weight eps {eps}
    : {hidden}, {norm} -> {hidden}
  %12 = mpgemm.matmul %11, %mlp_gate_proj_weight : {hidden}, {gate} -> {inner}
  %13 = mpgemm.matmul %11, %mlp_up_proj_weight : {hidden}, {up} -> {inner}
  %14 = fused.glu "silu" %12, %13 : {inner}
  %15 = mpgemm.matmul %14, %mlp_down_proj_weight : {inner}, {down} -> {hidden}
  %16 = arith.addf %10, %15 : {hidden}
  func.return %16, %6, %7 : {hidden}, {cache}, {cache}
}}
func.func @head(%hidden: {hidden}, {norm_parameter}, {head}) -> {logits} {{
  %0 = fused.rms_norm %hidden, %norm_weight eps {eps} : {hidden}, {norm} -> {hidden}
  %1 = mpgemm.matmul %0, %{head_name} : {hidden}, {head_type} -> {logits}
  func.return %1 : {logits}
}}
"""
LAYERS = "model.layers.{layer}."


MATRICES = {
    "q": LAYERS + "self_attn.q_proj.weight",
    "k": LAYERS + "self_attn.k_proj.weight",
    "v": LAYERS + "self_attn.v_proj.weight",
    "o": LAYERS + "self_attn.o_proj.weight",
    "gate": LAYERS + "mlp.gate_proj.weight",
    "up": LAYERS + "mlp.up_proj.weight",
    "down": LAYERS + "mlp.down_proj.weight",
    "embed_type": "model.embed_tokens.weight",
    "head_type": "lm_head.weight",
}
"""Name in the template -> name of the tensor."""


def shape_module(
    shape: ModelShape, spec: str, context: int, kv: str, rules: Sequence[WeightRule] = ()
) -> ModuleOp:
    """The module of a model whose matrices have format `spec`, but for those that rules name.

    context: tokens that its caches hold; kv: their type. FormatError where a matrix cannot have the
    format, WeightRuleError for rules that name nothing or some of the layers.
    """
    query, keys = shape.heads * shape.head, shape.kv_heads * shape.head
    hidden, inner = shape.hidden, shape.feed_forward
    types = {
        "q": (query, hidden),
        "k": (keys, hidden),
        "v": (keys, hidden),
        "o": (hidden, query),
        "gate": (inner, hidden),
        "up": (inner, hidden),
        "down": (hidden, inner),
        "embed_type": (shape.vocabulary, hidden),
        "head_type": (shape.vocabulary, hidden),
    }
    specs = dict.fromkeys(types, spec) | matrix_formats(shape, rules)
    for name, sides in types.items():
        formats.get(specs[name]).check_shape(sides)
    matrix = {
        name: f'!lowbit.tensor<{rows}x{cols}, "{specs[name]}">'
        for name, (rows, cols) in types.items()
    }
    norm = f"tensor<{hidden}xf32>"
    embed = ("embed_tokens.weight", "model.", matrix["embed_type"])
    head = embed if shape.tied else ("lm_head.weight", "", matrix["head_type"])
    text = _MODEL.format(
        **matrix,
        **{
            name: f"tensor<?x{columns}xf32>"
            for name, columns in (
                ("hidden", hidden),
                ("query", query),
                ("key", keys),
                ("inner", inner),
                ("logits", shape.vocabulary),
            )
        },
        norm=norm,
        angles=f"tensor<{context}x{shape.head // 2}xf32>",
        cache=f"tensor<{shape.kv_heads}x{context}x{shape.head}x{kv}>",
        eps=f"{EPSILON:e}",
        scale=f"{shape.head**-0.5:e}",
        embedding=_parameter(*embed),
        head=_parameter(*head),
        head_name=_argument(head[0]),
        norm_parameter=_parameter("norm.weight", "model.", norm),
        parameters=", ".join(_parameter(n, LAYERS, t) for n, t in _layer(matrix, norm)),
    )
    ends = ENDS.format(hidden=hidden, vocab=shape.vocabulary)
    return parse_module(make_context(), text + ends, f"<{shape.source}>")


def matrix_formats(shape: ModelShape, rules: Sequence[WeightRule]) -> dict[str, str]:
    """Name in MATRICES -> the format that rules give it. A head that is tied is the embedding."""
    if not rules:
        return {}
    tied = ("head_type",) if shape.tied else ()
    every = {
        one.format(layer=layer): name
        for name, one in MATRICES.items()
        if name not in tied
        for layer in range(shape.layers)
    }
    found: dict[str, set[str]] = {}
    chosen = choose_formats(rules, every)
    for tensor, name in every.items():
        found.setdefault(name, set()).add(chosen.get(tensor, ""))
    for name, given in found.items():
        if len(given) > 1:
            raise WeightRuleError(
                f"{name} of some layers only has a format of its own",
                accepted="rules for all layers of a model that is only a shape",
            )
    formats_of = {name: one for name, given in found.items() for one in given if one}
    if shape.tied and "embed_type" in formats_of:
        formats_of["head_type"] = formats_of["embed_type"]
    return formats_of


def _layer(matrix: dict[str, str], norm: str) -> list[tuple[str, str]]:
    """The parameters of a layer and their types, in the order of the importer."""
    return [
        ("self_attn.q_proj.weight", matrix["q"]),
        ("self_attn.k_proj.weight", matrix["k"]),
        ("self_attn.v_proj.weight", matrix["v"]),
        ("self_attn.o_proj.weight", matrix["o"]),
        ("mlp.gate_proj.weight", matrix["gate"]),
        ("mlp.up_proj.weight", matrix["up"]),
        ("mlp.down_proj.weight", matrix["down"]),
        ("input_layernorm.weight", norm),
        ("post_attention_layernorm.weight", norm),
    ]


def _argument(name: str) -> str:
    return name.replace(".", "_")


def _parameter(name: str, prefix: str, type_: str) -> str:
    """An argument as `raise-torch-to-operators` leaves it."""
    own = _argument(name)
    return f'%{own}: {type_} {{nybble.name = "{own}", nybble.weight = "{prefix}{name}"}}'
