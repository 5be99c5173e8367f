"""The IR of shapes whose matrices have several formats."""

from dataclasses import replace

import pytest

from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.frontend.weight_rules import WeightRuleError, parse_rules
from nybble.tools.shape_graph import shape_module
from nybble.tools.shape_model import ALIASES, SHAPES, find_shape

SMALL = replace(SHAPES["llama-3-8b"], layers=2, hidden=64, feed_forward=96, heads=4, kv_heads=2,
                head=16, vocabulary=300)  # fmt: skip


def found(rules, shape=SMALL):
    """Argument -> its format."""
    module = shape_module(shape, "w8", 32, "f32", parse_rules(rules))
    return {
        f"{function.sym_name.data}.{argument.name_hint}": argument.type.number_format.spec
        for function in module.ops
        for argument in function.body.block.args
        if isinstance(argument.type, LowBitTensorType)
    }


def test_rules_give_matrices_their_formats():
    formats = found("w4g32,down_proj=w2g32,head=w3")
    assert formats["layer_0.self_attn_v_proj_weight"] == "w4g32"
    assert formats["layer_0.mlp_down_proj_weight"] == "w2g32"
    assert formats["head.lm_head_weight"] == "w3"
    assert formats["embed.embed_tokens_weight"] == "w8"


def test_a_head_that_is_tied_has_the_format_of_the_embedding():
    formats = found("embed=w4", replace(SMALL, tied=True))
    assert formats["head.embed_tokens_weight"] == formats["embed.embed_tokens_weight"] == "w4"


def test_rules_for_some_layers_are_refused():
    with pytest.raises(WeightRuleError, match="q of some layers only has a format of its own"):
        found("layers.1=w4")
    with pytest.raises(WeightRuleError, match="no weight has 'other' in its name"):
        found("other=w4")


def test_other_spellings_of_a_shape_are_it():
    assert find_shape("llama2-7b") is SHAPES["llama-2-7b"]
    assert set(ALIASES).isdisjoint(SHAPES)
