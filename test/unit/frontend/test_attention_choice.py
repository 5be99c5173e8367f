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
        RetainTokens("layer_0_mask_0", 8, 24),
        SelectPages("layer_1_mask_2", "pages(16,2)+sink(1)"),
    ]
    assert [one.function for one in restrictions(made, policy)] == ["layer_0_mask_1"]
    states = [name for name, given in made.functions.items() if given[-1].role is Role.STATE]
    assert states == ["layer_0_mask_0", "layer_1_mask_2"]
    assert with_policy(graph, "heavy(8,24)").functions["layer_0"][-1].role is Role.STATE


def test_the_first_layer_of_a_group_chooses_for_all(graph):
    """Layers 1 and 2 are of different functions, and of one group with layer 0."""
    policy = "layers(0:window(9);else:windowkv(4,2,24,3))"
    made = with_policy(graph, policy)
    assert made.layers == (
        "layer_0_mask_0", "layer_0_mask_1", "layer_1_mask_1_follows", "layer_0_mask_1",
    )  # fmt: skip
    assert selections(made, policy) == [
        RetainTokens("layer_0_mask_1", 8, 24, "last", 4),
        RetainTokens("layer_1_mask_1_follows", 8, 24, "", 4),
    ]
    states = {
        name: [one.state(layer) for one in made.functions[name] if one.role is Role.STATE]
        for layer, name in enumerate(made.layers)
    }
    assert states["layer_1_mask_1_follows"] == ["moves_1.0"]
    assert states["layer_0_mask_1"] == ["mass_1.3", "moves_1.1"]


def test_alisa_looks_at_the_last_queries(graph):
    assert selections(graph, "alisa(8,24)")[0] == RetainTokens("layer_0", 8, 24, "last")


def test_learned_scores_come_with_weights(graph):
    made = with_policy(graph, "locret(8,24)", hidden=40)
    further = [(one.name, one.source) for one in made.functions["layer_0"][len(ONE) :]]
    assert [name for name, _ in further] == [
        "scorer_q", "scorer_k", "scorer_v", "scorer_out", "mass_0", "moves_0",
    ]  # fmt: skip
    assert further[0][1] == "model.layers.{layer}.self_attn.fc1.weight:q"
    passes = selections(made, "locret(8,24)", hidden=40)
    assert passes[0] == RetainTokens("layer_0", 8, 24, "learned", hidden=40)


@pytest.mark.parametrize(
    ("policy", "kv", "fault"),
    [
        ("heavy(8,23)", "f32", r"heavy\(8,23\) keeps 31 tokens .accepted: a multiple of 16"),
        ("heavy(8,24)", "kv4", "a cache of kv4 cannot evict, as heavy.*accepted: f32, f16"),
        ("alisa(8,23)", "f32", r"alisa\(8,23\) keeps 31 tokens .accepted: a multiple of 16"),
        ("windowkv(16,1,8)", "f32", "keeps 24 tokens"),
        ("windowkv(32,1,16)", "f32", "runs of 32 tokens and 16 recent ones .accepted: 32 recent"),
        ("windowkv(4,2,24)+sink(1)", "f32", r"accepted: .*windowkv\(size,count,recent,layers\) al"),
        ("locret(8,24)", "f32", "scores of learned heads, and there is no file .*--retaining FILE"),
        ("heavy(64,128)", "f32", "keeps 192 keys of a context of 128"),
        (
            "heavy(8,24)+sink(1)",
            "f32",
            r"chosen anew .*accepted: .*heavy\(budget,recent\), .* alone",
        ),
        ("pages(8,2)", "f32", "has pages of 8 keys .accepted: a multiple of 16"),
    ],
)
def test_choices_that_no_layer_can_have(graph, policy, kv, fault):
    made = replace(graph, dimensions=replace(graph.dimensions, kv_dtype=kv))
    with pytest.raises((KvError, MaskError), match=fault):
        with_policy(made, policy)
