"""Where operands lie: the parts of a gated product take turns in the same places."""

import pytest

from nybble.costmodel.features.facts import ProductSketch
from nybble.costmodel.features.table import Call, derived, sizes_of

OPTIONS = [
    {"k_block": 64, "row_tiles": 2, "subtiles": 2, "token_tile": 4, "unroll": 4, "tokens_outer": n}
    for n in (0, 1)
]


def columns(rows: tuple[int, ...], *, glu: bool):
    facts = ProductSketch("int_dot", "q4_0", rows, 256, 1, 32, glu=glu).facts()
    return derived(facts, Call(8), sizes_of(OPTIONS))


@pytest.mark.parametrize("rows", [256, 320])
def test_a_gate_is_two_products_that_share_their_places(rows: int):
    one, gate = columns((rows,), glu=False), columns((rows, rows), glu=True)
    for name in ("stays", "streams", "row_fill", "scratch_bytes"):
        assert gate[name].tolist() == pytest.approx(one[name].tolist()), name
    for name in ("streamed", "sums"):
        assert gate[name].tolist() == pytest.approx((2 * one[name]).tolist()), name
