"""`nybble verify --op sparse_attn.attention`: cases follow from the seed, and faults are found."""

import numpy as np
import pytest

from nybble.backends.cpu.kernels import attention_walk
from nybble.dialects.sparse_attn.masks.grammar import ATOMS
from nybble.tools.verify import attention, retained


def test_cases_follow_from_the_seed():
    kernels = [attention.drawn(5, group) for group in range(300)]
    assert kernels == [attention.drawn(5, group) for group in range(300)]
    assert any("heads(" in one.mask for one in kernels)
    assert any(one.rows == 1 for one in kernels)


def test_3000_cases_have_every_mask_format_and_softmax_together():
    kernels = [attention.drawn(5, number // attention.CASES_A_KERNEL) for number in range(3000)]
    plain = [one for one in kernels if isinstance(one, attention.Attention)]
    for mask, kv, softmax in attention.COMBINATIONS:
        assert any(mask in one.mask and (kv, softmax) == (one.kv, one.softmax) for one in plain)
    kept = {one.mask for one in kernels} - {one.mask for one in plain}
    assert kept == set(retained.MASKS)


def test_every_name_of_the_grammar_is_drawn():
    """All but `kept`, whose set nothing makes."""
    texts = " ".join((*attention.ATOMS, *retained.MASKS))
    assert {name for name in ATOMS if name not in texts} == {"kept"}


def test_attentions_are_right():
    outcomes = attention.run(2, range(6), 1)
    assert [one.fault for one in outcomes] == [""] * 6
    assert outcomes[3].report()["case"] == 3


@pytest.mark.parametrize("mask", ["windowkv(4,6,24)", "locret(31,1)"])
def test_attentions_that_keep_a_number_of_tokens_are_right(mask):
    kernel = retained.Retained(mask, "f16", "online", 4, 2, 16, 40)
    assert [one.fault for one in attention.run_group(2, kernel, [0, 1, 2], 1)] == [""] * 3


@pytest.mark.parametrize(
    ("mask", "kv", "softmax", "rows"),
    [("pages(64,2)", "kv8", "unified", 1), ("blocks(16)", "kivi2(16,0)-i8", "two_pass", 40)],
)
def test_empty_caches_are_drawn_and_right(mask, kv, softmax, rows):
    kernel = attention.Attention(mask, kv, softmax, 2, 1, 16, rows)
    empty = [n for n in range(200) if attention.position_of(kernel.values(2, n)) == attention.EMPTY]
    assert [one.fault for one in attention.run_group(2, kernel, empty[:2], 1)] == [""] * 2


def test_a_fault_is_found(monkeypatch):
    """A walk that leaves out the last block of keys."""
    scan = attention_walk.Walk._scan
    monkeypatch.setattr(attention_walk.Walk, "_scan", lambda self, a, b: scan(self, a, b - 1))
    kernel = attention.Attention("streaming(4,9)", "f32", "online", 2, 1, 16, 7)
    outcomes = list(attention.run_group(0, kernel, [0, 1, 2], 1))
    assert any(one.fault.startswith("result") for one in outcomes)


def test_what_is_not_finite_is_a_fault():
    kernel = attention.drawn(0, 0)
    values = kernel.values(0, 0)
    wanted = np.zeros((kernel.rows, 16))
    found = attention.judged(0, kernel, values, wanted, np.full_like(wanted, np.nan))
    assert found.fault == "a result is not finite"
