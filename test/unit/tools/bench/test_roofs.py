"""Which limit of the machine binds."""

import pytest

from nybble.tools.bench.roofs import Work, roof

RATES = {"l3": 30e9, "f32": 200e9, "int8": 900e9, "amx_int8": 7e12}


def test_memory_binds_one_token():
    limit = roof(Work(30e6, 1e6), "l3", RATES)
    assert limit.name == "l3"
    assert limit.seconds == pytest.approx(1e-3)


def test_multiplication_binds_many_tokens():
    limit = roof(Work(1.0, 7e9), "l3", RATES)
    assert limit.name == "amx_int8"
    assert limit.seconds == pytest.approx(1e-3)


def test_the_best_multiplier_that_there_is_counts():
    rates = {name: rate for name, rate in RATES.items() if name != "amx_int8"}
    assert roof(Work(1.0, 9e9), "l3", rates).name == "int8"
    assert roof(Work(1.0, 9e9), "l3", {"l3": 1.0, "f32": 2.0}).name == "f32"
