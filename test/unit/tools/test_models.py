"""The cache of compiled models: what it is keyed by, and what it makes of damage and drafts."""

import os
import shutil

import pytest

from nybble.dialects.errors import NybbleError
from nybble.tools import models
from nybble.tools.folder import check_folder, write_folder
from nybble.tools.verbs.cache import model_entries, remove_model


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NYBBLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def choice(tiny, artifact, own_cache, monkeypatch):
    """The small model, whose compilation is a copy of its artifact; `compiled` counts them."""
    chosen = models.choose(str(tiny), None, None, None, None)
    compiled = []

    def compile_to(self, folder):
        compiled.append(folder)
        shutil.copytree(artifact, folder)

    monkeypatch.setattr(models.ModelChoice, "compile_to", compile_to)
    monkeypatch.setattr(models.ModelChoice, "compiled", compiled, raising=False)
    return chosen


def test_a_model_is_compiled_once(choice):
    folder = choice.artifact()
    assert choice.artifact() == folder
    assert choice.compiled == [folder]


def test_a_damaged_entry_and_drafts_of_the_dead_are_replaced(choice):
    folder = choice.artifact()
    (folder / "manifest.json").write_text("{")
    draft = folder.with_name(f".{folder.name}.draft")
    draft.mkdir()
    (draft / "weights.bin").touch()
    assert choice.artifact() == folder
    assert len(choice.compiled) == 2
    assert not draft.exists()
    assert (folder / "manifest.json").read_text() != "{"


def test_the_key_has_all_that_a_compilation_depends_on(tiny, write_tiny, tmp_path, monkeypatch):
    def key(model, *options, threads=None):
        return models.choose(str(model), *options, threads)._key()

    usual = key(tiny, None, None, None, None)
    assert key(tiny, "i8", None, 128, None) == usual
    others = [
        key(tiny, "f32", None, None, None),
        key(tiny, None, "f32", None, None),
        key(tiny, None, None, 64, None),
        key(tiny, None, None, None, "x86-64-v3"),
        key(tiny, None, None, None, None, threads=64),
        key(write_tiny(tmp_path / "other"), None, None, None, None),
    ]
    file = tmp_path / "other" / "model.safetensors"
    os.utime(file, ns=(1, 1))
    others.append(key(tmp_path / "other", None, None, None, None))
    monkeypatch.setattr(models, "source_digest", lambda: "an edited compiler")
    others.append(key(tiny, None, None, None, None))
    assert len({usual, *others}) == 1 + len(others)


def test_a_default_context_fits_the_model(tiny):
    assert models.choose(str(tiny), None, None, None, None).context == 128
    assert models.choose(str(tiny), None, None, 64, None).context == 64


def test_clearing_leaves_a_model_that_is_being_made(choice, own_cache):
    folder = choice.artifact()
    assert model_entries() == [folder]
    with models.FileLock(folder.with_suffix(".lock")):
        assert not remove_model(folder)
    assert remove_model(folder)
    assert model_entries() == []


def test_a_folder_is_written_whole(tmp_path):
    target = tmp_path / "deep" / "folder"
    write_folder(target, {"a": b"1", "mark": b""}, "mark")
    write_folder(target, {"b": b"2", "mark": b""}, "mark")
    assert sorted(file.name for file in target.iterdir()) == ["b", "mark"]
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_that_fails_is_not_there(tmp_path):
    target = tmp_path / "folder"
    with pytest.raises(NybbleError, match="cannot write"):
        write_folder(target, {"a/b": b"1"}, "mark")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "other").touch()
    with pytest.raises(NybbleError, match="holds other files"):
        check_folder(tmp_path, "mark")
    with pytest.raises(NybbleError, match="is a file"):
        check_folder(tmp_path / "other", "mark")
