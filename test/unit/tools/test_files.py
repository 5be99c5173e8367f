"""Outputs are published whole; a failure leaves nothing behind."""

import os
from pathlib import Path

import pytest

from nybble.tools.files import display_name, read_input, write_output


def test_names():
    assert (display_name("-"), display_name("a.mlir")) == ("<stdin>", "a.mlir")


def test_round_trip(tmp_path):
    path = str(tmp_path / "file")
    write_output(path, b"one")
    write_output(path, b"two")
    assert read_input(path) == b"two"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def full(_path, _data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/file'"):
        write_output(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_read_only_file_is_not_replaced(tmp_path, monkeypatch):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError):
        write_output(str(target), b"new")
    assert target.read_bytes() == b"old"


def test_new_file_has_the_usual_permissions(tmp_path):
    plain, written = tmp_path / "plain", tmp_path / "written"
    plain.touch()
    write_output(str(written), b"")
    assert written.stat().st_mode == plain.stat().st_mode
