"""What `quantize-cache` refuses, and which formats are more than a type of tensor."""

import pytest

from nybble.dialects.errors import NybbleError
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.quantize_cache import QuantizeCache, held_as, needs_quantizing

TEXT = """
func.func @f(%q: tensor<1x160xf32>, %k: tensor<2x128x80xf16>, %v: tensor<2x128x80xf16>, %p: index) {
  %a = sparse_attn.attention %q, %k, %v at %p mask <"causal"> scale 1.0
    : tensor<1x160xf32>, tensor<2x128x80xf16>, tensor<2x128x80xf16> -> tensor<1x160xf32>
  func.return
}
"""


@pytest.mark.parametrize(
    ("kv", "fault"),
    [
        ("f16", "a cache of f16 is a tensor .accepted: bf16, kvN, kiviN"),
        ("kv9", "unknown format of a cache 'kv9'"),
        ("kivi4", "kivi4 has groups of 32 features of heads of 80"),
        (
            "kivi4(16,128)",
            "keeps 128 tokens as they are and rounds 64 at once, of a context of 128",
        ),
    ],
)
def test_refusals(kv, fault):
    module = parse_module(make_context(), TEXT, "<test>")
    with pytest.raises(NybbleError, match=fault):
        QuantizeCache(kv).apply(make_context(), module)


def test_what_a_cache_is_before():
    assert [held_as(kv) for kv in ("f32", "f16", "bf16", "kv4")] == ["f32", "f16", "f32", "f16"]
    assert [needs_quantizing(kv) for kv in ("f32", "f16", "bf16", "kv4")] == [
        False,
        False,
        True,
        True,
    ]
