"""What tuning takes of candidates that were measured."""

from nybble.costmodel.features.table import Call
from nybble.tools.tuning import fastest_in_all

FEW, MANY = Call(16), Call(512)
BEFORE = {FEW: 10.0, MANY: 100.0}


def taken(**others: dict[Call, float]) -> int:
    rows = {0: BEFORE, **dict(enumerate(others.values(), 1))}
    return fastest_in_all(rows, 0, (FEW, MANY))


def test_the_fastest_on_the_whole():
    assert taken(good={FEW: 9.0, MANY: 90.0}, better={FEW: 9.5, MANY: 70.0}) == 2


def test_what_makes_a_call_slower_is_not_taken():
    assert taken(uneven={FEW: 1.0, MANY: 101.0}) == 0


def test_what_was_not_run_in_every_call_is_not_taken():
    assert taken(failed={FEW: 1.0}) == 0
    assert fastest_in_all({0: {}, 1: {FEW: 1.0, MANY: 1.0}}, 0, (FEW, MANY)) == 0
