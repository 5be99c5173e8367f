"""The calls that a choice of sizes is made for."""

from nybble.costmodel.features.facts import AttentionSketch, ProductSketch, RowSketch
from nybble.costmodel.features.table import Call
from nybble.passes.tile_kernels import calls_of

PRODUCT = ProductSketch("int_dot", "q4_0", (1536,), 576, 1, 32).facts()
ATTENTION = AttentionSketch(9, 3, 64, 2).facts()


def test_one_token_is_one_call():
    assert calls_of(PRODUCT, 1, 1) == [Call(1, 2)]
    assert calls_of(RowSketch("norm", 576, 576).facts(), 1, 1) == [Call(1)]


def test_many_tokens_are_calls_of_every_size():
    assert [one.tokens for one in calls_of(PRODUCT, 512, 1)] == [128, 16, 512]
    assert [one.tokens for one in calls_of(PRODUCT, 64, 1)] == [64, 16]


def test_attention_keeps_to_its_cache():
    found = calls_of(ATTENTION, 1, 1, 2048)
    assert found == [Call(1, 1, 512), Call(1, 1, 64), Call(1, 1, 1024)]
    assert all(one.cached + one.tokens <= 640 for one in calls_of(ATTENTION, 128, 1, 640))
    assert calls_of(ATTENTION, 128, 1, 130) == [Call(16, 1, 64)]
    assert calls_of(ATTENTION, 1, 1, 32) == [Call(1, 1, 31)]
