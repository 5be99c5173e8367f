"""The log of measurements: append-only, resumable, and clear about what is wrong with a file."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from nybble.costmodel.data.log import Log, LogError
from nybble.costmodel.data.measurement import Measurement, Stand, Workload, key_of

STAND = Stand("zen", "llvm-22")
ONE = Measurement(Workload("module", 4), {"unroll": 2}, STAND, (2e-6, 1e-6), {"spills": 3})
BROKEN = Measurement(Workload("module", 4), {"unroll": 4}, STAND, failure="crashes: SIGSEGV")


def test_what_was_added_comes_back(tmp_path: Path):
    with Log(tmp_path / "log.db") as log:
        assert log.add([ONE, BROKEN]) == 2
    with Log(tmp_path / "log.db", create=False) as log:
        assert [*log.measurements()] == [ONE, BROKEN]
        assert log.keys() == {ONE.key, BROKEN.key}


def test_a_key_is_there_once(tmp_path: Path):
    with Log(tmp_path / "log.db") as log, Log(tmp_path / "log.db") as other:
        assert log.add([ONE]) == 1
        assert other.add([replace(ONE, rounds=(5e-6,)), BROKEN]) == 1
        assert [*log.measurements()] == [ONE, BROKEN]


def test_keys_tell_everything_apart():
    keys = {
        key_of(Workload("a", 1), {"x": 1}, STAND),
        key_of(Workload("a", 2), {"x": 1}, STAND),
        key_of(Workload("a", 1, 2), {"x": 1}, STAND),
        key_of(Workload("a", 1, 1, 7), {"x": 1}, STAND),
        key_of(Workload("b", 1), {"x": 1}, STAND),
        key_of(Workload("a", 1), {"x": 2}, STAND),
        key_of(Workload("a", 1), {"x": 1}, Stand("zen", "llvm-23")),
        key_of(Workload("a", 1), {"x": 1}, Stand("golden cove", "llvm-22")),
    }
    assert len(keys) == 8
    assert key_of(Workload("a", 1), {"x": 1, "y": 2}, STAND) == key_of(
        Workload("a", 1), {"y": 2, "x": 1}, STAND
    )


def test_nothing_is_added_where_one_of_many_fails(tmp_path: Path):
    bad = replace(BROKEN, options={"unroll": object()})  # type: ignore[dict-item]
    with Log(tmp_path / "log.db") as log:
        with pytest.raises(TypeError):
            log.add([ONE, bad])
        assert log.keys() == set()


def test_a_missing_log_is_not_made_to_be_read(tmp_path: Path):
    with pytest.raises(LogError, match="no log of measurements at"):
        Log(tmp_path / "log.db", create=False)


def test_a_damaged_log(tmp_path: Path):
    (tmp_path / "log.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(LogError, match="is damaged, or no log of measurements"):
        Log(tmp_path / "log.db")


def test_a_log_of_another_version(tmp_path: Path):
    db = sqlite3.connect(tmp_path / "log.db")
    db.execute("create table workloads (name)")
    db.execute("pragma user_version = 9")
    db.close()
    with pytest.raises(LogError, match="is a log of version 9"):
        Log(tmp_path / "log.db")


def test_a_full_disk(tmp_path: Path):
    with Log(tmp_path / "log.db") as log:
        log.add([ONE])
        pages = log._db.execute("pragma page_count").fetchone()[0]
        log._db.execute(f"pragma max_page_count = {pages}")
        many = [replace(BROKEN, options={"unroll": i}, failure="x" * 4000) for i in range(50)]
        with pytest.raises(LogError, match="no room on the disk"):
            log.add(many)
        assert log.keys() == {ONE.key}


def test_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(LogError, match="cannot use"):
        Log(tmp_path / "none" / "log.db")
