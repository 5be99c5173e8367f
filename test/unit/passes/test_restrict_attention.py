"""What `restrict-attention` refuses."""

import pytest

from nybble.dialects.errors import NybbleError
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.restrict_attention import RestrictAttention


@pytest.mark.parametrize(
    ("function", "mask", "fault"),
    [
        ("g", "causal", "no function 'g' in the module"),
        ("f", "blocks(64)+causal", r"blocks\(64\) is chosen anew for each token"),
        ("f", "window", "window has 0 numbers"),
    ],
)
def test_refusals(function, mask, fault):
    module = parse_module(make_context(), "func.func private @f()", "<test>")
    with pytest.raises(NybbleError, match=fault):
        RestrictAttention(function, mask).apply(make_context(), module)
