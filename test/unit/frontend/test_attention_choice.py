"""A policy laid over a model's graph: functions are copied for layers that get masks apart."""

from dataclasses import replace

import numpy as np
import pytest

from nybble.dialects.sparse_attn.kv import KvError
from nybble.dialects.sparse_attn.masks import MaskError
from nybble.frontend.attention_choice import restrictions, selections, with_policy
from nybble.frontend.graph import Argument, Dimensions, ModelGraph, Role
from nybble.passes.retain_tokens import RetainTokens
from nybble.passes.select_pages import SelectPages

TEXT = """
func.func @embed(%a: i32) { func.return }
func.func @layer_0(%a: i32) { func.return }
func.func @layer_1(%a: i32) { func.return }
"""
ONE = (Argument("a", Role.INPUT),)


@pytest.fixture
def graph():
    sizes = Dimensions(4, 8, 2, 2, 4, 16, 128, "f32")
    functions = {"embed": ONE, "layer_0": ONE, "layer_1": ONE}
    layers = ("layer_0", "layer_0", "layer_1", "layer_0")
    return ModelGraph("llama", sizes, TEXT, functions, "embed", layers, "head", {"t": np.zeros(1)})


def names(graph):
    return [op.sym_name.data for op in graph.module().ops]


def test_one_mask_keeps_the_functions(graph):
    assert with_policy(graph, "") is graph
    assert restrictions(graph, "") == []
    assert with_policy(graph, "window(4)") is graph
    passes = restrictions(graph, "window(4)")
    assert [(one.function, one.mask) for one in passes] == [
        ("layer_0", "window(4)"), ("layer_1", "window(4)"),
    ]  # fmt: skip


def test_masks_apart_make_functions_apart(graph):
    policy = "layers(0,2:causal;else:sink(4))"
    made = with_policy(graph, policy)
    assert made.layers == ("layer_0_mask_0", "layer_0_mask_1", "layer_1_mask_0", "layer_0_mask_1")
    assert names(made) == ["embed", "layer_0_mask_0", "layer_0_mask_1", "layer_1_mask_0"]
    assert set(made.functions) == set(names(made))
    passes = restrictions(made, policy)
    assert [(one.function, one.mask) for one in passes] == [("layer_0_mask_1", "sink(4)")]


def test_codes_that_no_layer_reads_are_refused(graph):
    coded = replace(graph, dimensions=replace(graph.dimensions, kv_dtype="kivi4(32,64)"))
    with pytest.raises(KvError, match=r"no query sees more than 63 .*accepted: .* reaches 65"):
        with_policy(coded, "layers(0:window(8);else:window(64))")
    for policy in ("window(66)", "layers(0:causal;else:window(64))", "sink(1)+window(8)"):
        with_policy(coded, policy)


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        ("layers(4:causal;else:sink(4))", "names layer 4"),
        ("kept(64)", r"kept\(64\) is chosen anew .*accepted: masks of positions"),
        ("sink(129)", "in a context of 128"),
    ],
)
def test_policies_that_a_model_cannot_have(graph, policy, fault):
    with pytest.raises(MaskError, match=fault):
        with_policy(graph, policy)


def test_layers_that_choose_have_a_state(graph):
    policy = "layers(0,3:heavy(8,24);2:pages(16,2)+sink(1);else:window(4))"
    made = with_policy(graph, policy)
    passes = selections(made, policy)
    assert passes == [
        RetainTokens("layer_0_mask_0", 8, 24), SelectPages("layer_1_mask_2", "pages(16,2)+sink(1)"),
    ]  # fmt: skip
    assert [one.function for one in restrictions(made, policy)] == ["layer_0_mask_1"]
    states = [name for name, given in made.functions.items() if given[-1].role is Role.STATE]
    assert states == ["layer_0_mask_0", "layer_1_mask_2"]
    assert with_policy(graph, "heavy(8,24)").functions["layer_0"][-1].role is Role.STATE


@pytest.mark.parametrize(
    ("policy", "kv", "fault"),
    [
        ("heavy(8,23)", "f32", r"heavy\(8,23\) keeps 31 tokens .accepted: a multiple of 16"),
        ("heavy(8,24)", "kv4", "a cache of kv4 cannot evict, as heavy.*accepted: f32, f16"),
        ("heavy(64,128)", "f32", "keeps 192 keys of a context of 128"),
        (
            "heavy(8,24)+sink(1)",
            "f32",
            r"chosen anew .*accepted: .*heavy\(budget,recent\) alone",
        ),
        ("pages(8,2)", "f32", "has pages of 8 keys .accepted: a multiple of 16"),
    ],
)
def test_choices_that_no_layer_can_have(graph, policy, kv, fault):
    made = replace(graph, dimensions=replace(graph.dimensions, kv_dtype=kv))
    with pytest.raises((KvError, MaskError), match=fault):
        with_policy(made, policy)
