"""A mask for each layer: text, lookup, and what does not fit a model."""

import pytest

from nybble.dialects.sparse_attn.masks import MaskError, parse_policy


def test_layers_have_masks():
    policy = parse_policy("layers(0, 4-5: causal; 1: sink(2); else: window(8))")
    assert str(policy) == "layers(0,4-5:causal;1:sink(2);else:window(8))"
    assert [str(policy.mask(layer)) for layer in (0, 1, 2, 5)] == [
        "causal", "sink(2)", "window(8)", "causal",
    ]  # fmt: skip
    assert str(parse_policy(str(policy))) == str(policy)
    policy.check(6, 64, 1)


def test_one_mask_is_that_of_all_layers():
    policy = parse_policy("sink(4)+window(8)")
    assert str(policy) == str(policy.mask(3)) == "sink(4)+window(8)"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("layers(6:causal;else:sink(1))", r"names layer 6 \(accepted: 0 to 5\)"),
        ("layers(2:sink(99);else:causal)", r"sink\(99\) in a context of 64"),
        ("heads(3:causal;else:sink(1))", "names head 3"),
    ],
)
def test_policies_that_do_not_fit(text, fault):
    with pytest.raises(MaskError, match=fault):
        parse_policy(text).check(6, 64, 2)


@pytest.mark.parametrize("text", ["layers(causal)", "layers(0:causal;else:causal)+sink(1)", ""])
def test_texts_that_are_no_policy(text):
    with pytest.raises(MaskError, match="in the mask"):
        parse_policy(text)
