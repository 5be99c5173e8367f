"""What tuning takes of candidates that were measured, and what a compilation takes of that."""

import pytest

from nybble.costmodel.data.measurement import Stand
from nybble.costmodel.data.schedules import Entry, Schedules, write_schedules
from nybble.costmodel.features.table import Call
from nybble.frontend.compile_model import CompileOptions
from nybble.passes.targets import LEARNED
from nybble.tools.cost.collect import stand
from nybble.tools.tuning import fastest_in_all, with_schedules

FEW, MANY = Call(16), Call(512)
BEFORE = {FEW: 10.0, MANY: 100.0}


def taken(**others: dict[Call, float]) -> tuple[int, float]:
    rows = {0: BEFORE, **dict(enumerate(others.values(), 1))}
    return fastest_in_all(rows, 0, (FEW, MANY))


def test_the_fastest_on_the_whole():
    place, gain = taken(good={FEW: 9.0, MANY: 90.0}, better={FEW: 9.5, MANY: 70.0})
    assert place == 2
    assert gain == pytest.approx((0.05 + 0.3) / 2)


def test_what_makes_a_call_slower_is_not_taken():
    assert taken(uneven={FEW: 1.0, MANY: 101.0}) == (0, 0.0)


def test_what_was_not_run_in_every_call_is_not_taken():
    assert taken(failed={FEW: 1.0}) == (0, 0.0)
    assert fastest_in_all({0: {}, 1: {FEW: 1.0, MANY: 1.0}}, 0, (FEW, MANY)) == (0, 0.0)


def test_a_database_brings_its_sizes_and_what_dataflows_were_compared_by(tmp_path, capsys):
    path = tmp_path / "schedules.json"
    entries = {"key": Entry("norm", "vector", {"lanes": 8}, "why")}
    write_schedules(Schedules(stand(), entries, LEARNED), path)
    found = with_schedules(CompileOptions(), str(path))
    assert (found.costs, dict(found.schedules)) == (LEARNED, entries)
    assert found.pass_options()["costs"] == LEARNED
    assert with_schedules(CompileOptions(), None) == CompileOptions()
    write_schedules(Schedules(Stand("another", "compiler"), entries, LEARNED), path)
    assert with_schedules(CompileOptions(), str(path)) == CompileOptions()
    assert "is not applied: made for 'another'" in capsys.readouterr().err
