"""Rules that give weights formats: spelling, the tensors they name, what is refused."""

import pytest

from nybble.dialects.lowbit.formats import FormatError
from nybble.frontend.weight_rules import WeightRuleError, choose_formats, parse_rules, spell

NAMES = [
    "model.embed_tokens.weight",
    "lm_head.weight",
    *(
        f"model.layers.{layer}.{part}.weight"
        for layer in (0, 1, 10)
        for part in ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")
    ),
]


def chosen(text):
    """Shortened name -> format."""
    found = choose_formats(parse_rules(text), NAMES)
    return {
        name.removesuffix(".weight").removeprefix("model."): spec for name, spec in found.items()
    }


def test_a_bare_format_is_for_the_layers():
    found = chosen("w2g128")
    assert set(found.values()) == {"w2g128"}
    assert set(found) == {name[6:-7] for name in NAMES if ".layers." in name}


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ("head", {"lm_head"}),
        ("embed", {"embed_tokens"}),
        ("down_proj", {f"layers.{layer}.mlp.down_proj" for layer in (0, 1, 10)}),
        ("*_proj", {name[6:-7] for name in NAMES if "_proj" in name}),
        ("layers.1.mlp", {"layers.1.mlp.up_proj", "layers.1.mlp.down_proj"}),
        ("layers.1[0-9].self_attn", {"layers.10.self_attn.q_proj"}),
        ("1.mlp.*", {"layers.1.mlp.up_proj", "layers.1.mlp.down_proj"}),
    ],
)
def test_a_pattern_is_of_whole_parts_of_names(rule, named):
    assert set(chosen(f"{rule}=q8_0")) == named


def test_the_last_rule_counts_and_keep_keeps():
    found = chosen("w4g32, layers.0=w2g32 ,layers.0.mlp=keep,head=q8_0")
    assert found["lm_head"] == "q8_0"
    assert found["layers.0.self_attn.q_proj"] == "w2g32"
    assert "layers.0.mlp.up_proj" not in found
    assert found["layers.1.mlp.up_proj"] == "w4g32"
    assert "embed_tokens" not in found


def test_spellings_of_formats_have_commas_and_equals_signs():
    text = "table[-1.0,0.0,0.5,2.0]:g=32:s=f16,head=u4:g=32x8:s=u6*f16"
    rules = parse_rules(text)
    assert [rule.pattern for rule in rules] == ["layers", "head"]
    assert rules[1].spec == "u4:g=32x8:s=u6*f16"
    assert rules[0].spec.startswith("table[-1.0,0.0,0.5,2.0]")
    assert parse_rules(spell(rules)) == rules


@pytest.mark.parametrize("text", ["", ",", "head=", "=w4g32", "w4g32,,head=q8_0"])
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(WeightRuleError, match=r"is no rule for weights .*FORMAT or PATTERN=FORMAT"):
        parse_rules(text)


def test_an_unknown_format_is_refused_with_those_that_exist():
    with pytest.raises(FormatError, match=r"unknown format 'w4q32' .*q4_0"):
        parse_rules("head=w4q32")


def test_a_rule_that_names_nothing_is_refused_with_what_there_is():
    with pytest.raises(WeightRuleError, match=r"'donw_proj' in its name .*down_proj") as caught:
        chosen("donw_proj=w4g32")
    assert "head, embed, layers" in caught.value.accepted
