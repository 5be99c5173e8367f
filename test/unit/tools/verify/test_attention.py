"""`nybble verify --op sparse_attn.attention`: cases follow from the seed, and faults are found."""

import numpy as np
import pytest

from nybble.backends.cpu.kernels import attention_walk
from nybble.dialects.errors import NybbleError
from nybble.dialects.sparse_attn.masks.grammar import ATOMS
from nybble.tools.verify import attention, retained


def test_cases_follow_from_the_seed():
    kernels = [attention.drawn(5, group) for group in range(300)]
    assert kernels == [attention.drawn(5, group) for group in range(300)]
    assert any("heads(" in one.mask for one in kernels)
    assert any(one.rows == 1 for one in kernels)


def test_3000_cases_have_every_mask_format_and_softmax_together():
    kernels = [attention.drawn(5, number // attention.CASES_A_KERNEL) for number in range(3000)]
    outcomes = [attention.Outcome(i, one, i % 3 - 1, 0, "") for i, one in enumerate(kernels)]
    found = attention.coverage(outcomes)
    assert found["combinations"] == {"drawn": 390, "of": 390}
    assert set(found["kv"]) == set(attention.KV)
    assert min(found["masks"].values()) > 50
    assert len(found["masks"]) == len(attention.ATOMS) + len(retained.MASKS)
    assert sum(found["softmax"].values()) == 3000
    assert found["empty_caches"] == 1000


def test_every_name_of_the_grammar_is_drawn():
    """All but `kept`, whose set nothing makes."""
    texts = " ".join((*attention.ATOMS, *retained.MASKS))
    assert {name for name in ATOMS if name not in texts} == {"kept"}


def test_attentions_are_right():
    outcomes = attention.run(2, range(6), 1)
    assert [one.fault for one in outcomes] == [""] * 6
    assert outcomes[3].report()["case"] == 3
    blind = attention.coverage(outcomes)["queries_without_keys"]
    assert blind == sum(one.blind for one in outcomes)


def test_what_does_not_compile_is_a_fault_of_its_cases_alone(monkeypatch):
    def refuse(*_):
        raise NybbleError("no such kernel")

    monkeypatch.setattr(attention, "run_group", refuse)
    outcomes = attention.run(2, range(4, 8), 1)
    assert [one.number for one in outcomes] == [4, 5, 6, 7]
    assert {one.fault for one in outcomes} == {"NybbleError: no such kernel"}


@pytest.mark.parametrize("mask", ["windowkv(4,6,24)", "locret(31,1)"])
def test_attentions_that_keep_a_number_of_tokens_are_right(mask):
    kernel = retained.Retained(mask, "f16", "online", 4, 2, 16, 40)
    assert [one.fault for one in attention.run_group(2, kernel, [0, 1, 2])] == [""] * 3


@pytest.mark.parametrize(
    ("mask", "kv", "softmax", "rows"),
    [("pages(64,2)", "kv8", "unified", 1), ("blocks(16)", "kivi2(16,0)-i8", "two_pass", 40)],
)
def test_empty_caches_are_drawn_and_right(mask, kv, softmax, rows):
    kernel = attention.Attention(mask, kv, softmax, 2, 1, 16, rows)
    empty = [n for n in range(200) if attention.position_of(kernel.values(2, n)) == attention.EMPTY]
    outcomes = [*attention.run_group(2, kernel, empty[:2])]
    assert [(one.fault, one.blind) for one in outcomes] == [("", True)] * 2


def test_a_fault_is_found(monkeypatch):
    """A walk that leaves out the last block of keys."""
    scan = attention_walk.Walk._scan
    monkeypatch.setattr(attention_walk.Walk, "_scan", lambda self, a, b: scan(self, a, b - 1))
    kernel = attention.Attention("streaming(4,9)", "f32", "online", 2, 1, 16, 7)
    outcomes = list(attention.run_group(0, kernel, [0, 1, 2]))
    assert any(one.fault.startswith("result") for one in outcomes)


def test_what_is_not_finite_is_a_fault():
    kernel = attention.drawn(0, 0)
    values = kernel.values(0, 0)
    wanted = np.zeros((kernel.rows, 16))
    found = attention.judged(0, kernel, values, wanted, np.full_like(wanted, np.nan))
    assert found.fault == "a result is not finite"
