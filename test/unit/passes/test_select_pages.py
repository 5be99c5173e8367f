"""What `select-pages` and `retain-tokens` refuse."""

import pytest

from nybble.dialects.errors import NybbleError
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.retain_tokens import RetainTokens
from nybble.passes.select_pages import SelectPages

TEXT = """
func.func @f(%q: tensor<1x32xf32>, %k: tensor<2x128x16xf32>, %p: index) {
  %a = sparse_attn.attention %q, %k, %k at %p mask <"causal"> scale 1.0
    : tensor<1x32xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<1x32xf32>
  func.return
}
"""


@pytest.mark.parametrize(
    ("one", "fault"),
    [
        (SelectPages("g", "pages(16,2)"), "no function 'g' in the module"),
        (SelectPages("f", "blocks(64)+pages(16,2)"), "chooses no pages, or more than that"),
        (SelectPages("f", "causal"), r"causal chooses no pages.*accepted: pages\(size,count\)"),
        (SelectPages("f", "pages(8,2)"), r"pages of 8 keys .accepted: a multiple of 16"),
        (SelectPages("f", "pages(16,2)"), "it has lists, or no keys are appended"),
        (RetainTokens("g", 8, 8), "no function 'g' in the module"),
    ],
)
def test_refusals(one, fault):
    module = parse_module(make_context(), TEXT, "<test>")
    with pytest.raises(NybbleError, match=fault):
        one.apply(make_context(), module)
