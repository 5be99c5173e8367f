"""Databases of schedules: what was written comes back, and what is wrong with a file is said."""

from pathlib import Path

import pytest

from nybble.costmodel.data.measurement import Stand
from nybble.costmodel.data.schedules import (
    Entry,
    Schedules,
    SchedulesError,
    key_of,
    read_schedules,
    write_schedules,
)

FOUND = Schedules(
    Stand("zen", "llvm-22"), {key_of("module", 1): Entry("norm", "vector", {"lanes": 16}, "why")}
)


def test_what_was_written_comes_back(tmp_path: Path):
    write_schedules(FOUND, tmp_path / "s.json")
    assert read_schedules(tmp_path / "s.json") == FOUND


def test_what_dataflows_were_compared_by_comes_back(tmp_path: Path):
    write_schedules(Schedules(FOUND.stand, costs="learned"), tmp_path / "s.json")
    assert read_schedules(tmp_path / "s.json").costs == "learned"


def test_it_holds_for_one_machine_and_one_compiler():
    assert FOUND.mismatch(Stand("zen", "llvm-22")) is None
    assert FOUND.mismatch(Stand("golden cove", "llvm-22")) == (
        "made for 'zen', this is 'golden cove'"
    )
    assert FOUND.mismatch(Stand("zen", "llvm-23")) == "made by llvm-22, this is llvm-23"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{oops", "is no database of schedules"),
        ("[]", "is no database of schedules of version 1"),
        ('{"version": 2}', "is no database of schedules of version 1"),
        ('{"version": 1, "stand": {}}', "is damaged"),
        ('{"version": 1, "entries": {"a": {"kernel": 1}}}', "is damaged"),
        ('{"version": 1, "entries": {}, "costs": 1}', "is damaged: costs 1"),
    ],
)
def test_a_bad_file(tmp_path: Path, text: str, said: str):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(SchedulesError, match=said):
        read_schedules(tmp_path / "s.json")


def test_a_file_that_cannot_be_read_or_written(tmp_path: Path):
    with pytest.raises(SchedulesError, match="cannot read"):
        read_schedules(tmp_path / "none.json")
    with pytest.raises(SchedulesError, match="cannot write"):
        write_schedules(FOUND, tmp_path / "none" / "s.json")
