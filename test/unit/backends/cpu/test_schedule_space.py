"""Sizes that a schedule may choose: what is legal, what is refused, that none changes a result."""

import random

import pytest

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.machine import cpu_flags
from nybble.backends.cpu.schedule_space import ScheduleError, Size, Space, divisors, powers
from nybble.costmodel.features.table import Call
from nybble.tools.cost.collect import Built, Plan
from nybble.tools.cost.kernel_workloads import attention_text, row_text
from nybble.tools.cost.subject import Subject
from nybble.tools.cost.worker import Runner
from nybble.tools.cost.workloads import CAPACITY, Load, ProductBase

SPACE: Space[int] = Space(
    (
        Size("unroll", "steps", lambda total: divisors(total, 8), lambda _: 1),
        Size("ahead", "bytes", lambda _: (0, 64), lambda _: 32),
    ),
    lambda _, chosen: "64 bytes and 8 steps" if chosen == {"unroll": 8, "ahead": 64} else None,
)


def test_a_default_is_legal_even_if_no_value_says_so():
    assert SPACE.settle(12, {}) == {"unroll": 1, "ahead": 32}
    assert SPACE.settle(12, {"ahead": 32})["ahead"] == 32


def test_candidates_are_all_that_is_legal():
    found = [*SPACE.candidates(8)]
    assert len(found) == 4 * 3 - 1
    assert {"unroll": 8, "ahead": 64} not in found


@pytest.mark.parametrize(
    ("asked", "said", "accepted"),
    [
        ({"unroll": 3}, "size unroll = 3 (steps)", "1, 2, 4, 8"),
        ({"depth": 2}, "this kernel has no size 'depth' to schedule", "unroll, ahead"),
        ({"unroll": 8, "ahead": 64}, "sizes that do not go together: 64 bytes and 8 steps", None),
    ],
)
def test_an_illegal_choice_is_refused(asked: dict[str, int], said: str, accepted: str | None):
    with pytest.raises(ScheduleError) as caught:
        SPACE.settle(8, asked)
    assert caught.value.message == said
    assert caught.value.accepted == accepted


def test_powers():
    assert powers(8) == [1, 2, 4, 8]
    assert powers(32, 4) == [4, 8, 16, 32]


def _loads() -> list[Load]:
    isa = levels.X86_64_V3
    base = ProductBase("q4_0", 70, 64, "i8-only", (5,), (1,), isa, 9)
    found = [*base.loads()]
    for tokens, rows in ((1, "1"), (CAPACITY, "?")):
        subject = Subject(attention_text(rows, 4, 2, 32), tokens, isa)
        found.append(Load("attention", subject, (Call(min(tokens, 19), 1, 40),), 3))
    subject = Subject(row_text("norm_quantize", "?", 160, 1), 128, isa)
    return [*found, Load("norm_quantize", subject, (Call(7),), 3)]


@pytest.mark.skipif(not levels.X86_64_V3.needs <= cpu_flags(), reason="runs AVX2")
@pytest.mark.parametrize("load", _loads(), ids=lambda one: f"{one.family}-{one.subject.capacity}")
def test_no_choice_changes_the_result(load: Load):
    built = Built(load.subject)
    built.add(load.subject.some_candidates(load.candidates, 3))
    batch, _ = built.batch(load.calls, Plan(0.0))
    runner = Runner(batch, _Number())
    wanted = {}
    faults = [runner.check(number, wanted) for number in range(len(batch.turns))]
    assert len(faults) > 1
    assert faults == [None] * len(faults)


class _Number:
    """Stands for the number that processes share."""

    value = -1


def test_candidates_of_a_product_are_many():
    (load,) = [
        one
        for one in ProductBase("q4_0", 256, 512, "i8", (8,), (1,), levels.X86_64_V3, 8).loads()
        if one.family == "int_dot" and one.subject.capacity > 1
    ]
    found = [*load.subject.choices.candidates()]
    assert len(found) > 100
    for one in random.Random(0).sample(found, 20):
        assert load.subject.choices.settle(one) == one
        assert load.subject.choices.allows(one)
