"""What `quantize-cache` refuses, and which formats are more than a type of tensor."""

import numpy as np
import pytest

from nybble.dialects.errors import NybbleError
from nybble.dialects.interpreter import Interpreter
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
        (
            "kivi2(16,16)-h",
            r"turns heads of 80 .* .accepted: heads of a power of two, or kivi2\(16",
        ),
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


APPENDED = """
func.func @f(%q: tensor<?x64xf32>, %x: tensor<?x32xf32>, %k: tensor<1x128x32xf16>,
    %v: tensor<1x128x32xf16>, %p: index) -> tensor<?x64xf32> {
  %0 = sparse_attn.append_kv %x into %k at %p : tensor<?x32xf32> into tensor<1x128x32xf16>
      -> tensor<1x128x32xf16>
  %1 = sparse_attn.append_kv %x into %v at %p : tensor<?x32xf32> into tensor<1x128x32xf16>
      -> tensor<1x128x32xf16>
  %a = sparse_attn.attention %q, %0, %1 at %p mask <"causal"> scale 0.2
    : tensor<?x64xf32>, tensor<1x128x32xf16>, tensor<1x128x32xf16> -> tensor<?x64xf32>
  func.return %a : tensor<?x64xf32>
}
"""


def test_turning_changes_no_score():
    """Of tokens that are all recent; scores and so weights would be others of either one alone."""
    random = np.random.default_rng(0)
    q, x = (random.standard_normal((20, width)).astype(np.float32) for width in (64, 32))
    found: list[np.ndarray] = []
    for kv in ("kivi4(32,64)", "kivi4(32,64)-h"):
        module = parse_module(make_context(), APPENDED, "<test>")
        QuantizeCache(kv, 20).apply(make_context(), module)
        module.verify()
        empty = np.zeros((2, 1, 128, 32), np.float16)
        found += Interpreter(module).call("f", q, x, *empty, 0)
    np.testing.assert_allclose(found[0], found[1], atol=5e-3)
