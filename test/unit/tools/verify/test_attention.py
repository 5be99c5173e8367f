"""`nybble verify --op sparse_attn.attention`: cases follow from the seed, and faults are found."""

import numpy as np

from nybble.backends.cpu.kernels import attention_walk
from nybble.tools.verify import attention


def test_cases_follow_from_the_seed():
    kernels = [attention.drawn(5, group) for group in range(60)]
    assert kernels == [attention.drawn(5, group) for group in range(60)]
    assert {one.softmax for one in kernels} == set(attention.SOFTMAX)
    assert {"f32", "f16", "bf16", "kv4", "kv2"} < {one.kv for one in kernels}
    assert any("heads(" in one.mask for one in kernels)
    assert any(one.rows == 1 for one in kernels)


def test_attentions_are_right():
    outcomes = attention.run(2, range(12), 1)
    assert [one.fault for one in outcomes] == [""] * 12
    assert outcomes[3].report()["case"] == 3


def test_a_fault_is_found(monkeypatch):
    """A walk that leaves out the last block of keys."""
    scan = attention_walk.Walk._scan
    monkeypatch.setattr(attention_walk.Walk, "_scan", lambda self, a, b: scan(self, a, b - 1))
    kernel = attention.Attention("streaming(4,9)", "f32", "online", 2, 1, 16, 7)
    outcomes = list(attention.run_group(0, kernel, [0, 1, 2], 1))
    assert any(one.fault.startswith("result") for one in outcomes)


def test_what_is_not_finite_is_a_fault():
    kernel = attention.drawn(0, 0)
    values = attention.draw_case(0, 0, kernel)
    wanted = np.zeros((kernel.rows, 16))
    found = attention.judged(0, kernel, values, wanted, np.full_like(wanted, np.nan))
    assert found.fault == "a result is not finite"
