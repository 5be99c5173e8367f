"""An artifact comes back as it was written, or is refused; a failed write leaves nothing."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nybble.backends.cpu import archive, artifact
from nybble.backends.cpu.artifact import ArtifactError, content_digest, open_artifact
from nybble.backends.cpu.artifact_writer import save
from nybble.backends.cpu.elf import ObjectError
from nybble.backends.cpu.machine import Machine, native

TOKENIZER = b'{"model": "toy"}'


@pytest.fixture
def saved(tmp_path: Path, toy) -> Path:
    directory = tmp_path / "model"
    save(directory, toy.plan, native(), toy.objects, toy.weight, {"tokenizer.json": TOKENIZER})
    return directory


def test_round_trip(saved: Path, toy) -> None:
    opened = open_artifact(saved)
    assert opened.plan == toy.plan
    assert opened.machine == native()
    assert opened.objects() == toy.objects
    assert opened.read("tokenizer.json") == TOKENIZER
    weights = opened.weights()
    assert weights.ctypes.data % 64 == 0
    assert (weights.view(np.float32).reshape(16, 16) == toy.weight("table")).all()
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model"]


def test_weights_are_padded_to_cache_lines(tmp_path: Path, toy) -> None:
    buffers = (*toy.plan.buffers, replace(toy.plan.buffers[7], name="odd", bytes=65))
    made = replace(toy.plan, buffers=buffers)
    extra = {"odd": np.arange(65, dtype=np.uint8)}
    save(tmp_path / "m", made, native(), [], lambda n: extra[n] if n in extra else toy.weight(n))
    weights = open_artifact(tmp_path / "m").weights()
    assert len(weights) == 1024 + 128
    assert weights[1024:].tolist() == [*range(65), *[0] * 63]


def test_an_artifact_is_replaced(saved: Path, toy) -> None:
    save(saved, toy.plan, native(), [], toy.weight)
    assert open_artifact(saved).objects() == []
    assert not (saved / "tokenizer.json").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_other_files_are_left_alone(tmp_path: Path, toy) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ArtifactError, match=r"holds other files .accepted: a new or empty"):
        save(tmp_path, toy.plan, native(), [], toy.weight)
    with pytest.raises(ArtifactError, match="is a file"):
        save(tmp_path / "thesis.tex", toy.plan, native(), [], toy.weight)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("there", [False, True])
def test_a_failed_write_leaves_nothing(tmp_path: Path, toy, there: bool) -> None:
    if there:
        save(tmp_path / "m", toy.plan, native(), toy.objects, toy.weight)
    with pytest.raises(ArtifactError, match=r"weight 'table' has 12 bytes .accepted: 1024"):
        save(tmp_path / "m", toy.plan, native(), [], lambda _: np.zeros(3, np.float32))
    assert [path.name for path in tmp_path.iterdir()] == (["m"] if there else [])
    if there:
        assert open_artifact(tmp_path / "m").objects() == toy.objects


def test_a_place_that_cannot_be_written(tmp_path: Path, toy) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"cannot write .*file/m: "):
        save(tmp_path / "file" / "m", toy.plan, native(), [], toy.weight)


@pytest.mark.parametrize("name", ["kernels.a", "weights.bin", "tokenizer.json"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "bytes .accepted"),
        (lambda data: data + b"\0", "bytes .accepted"),
        (lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:], "its SHA-256 is not"),
        (lambda data: b"", "0 bytes"),
    ],
)
def test_a_damaged_file(
    saved: Path, name: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = saved / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactError, match=message):
        open_artifact(saved).read(name)


def test_a_missing_file(saved: Path) -> None:
    (saved / "kernels.a").unlink()
    with pytest.raises(ArtifactError, match=r"cannot read .*kernels.a: No such file"):
        open_artifact(saved).objects()
    with pytest.raises(ArtifactError, match=r"has no merges.txt .accepted: tokenizer.json, kern"):
        open_artifact(saved).read("merges.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is damaged"),
        (b"\xff\xfe\x00", "is damaged"),
        (b"[]", "is damaged: it is a list"),
        (b'{"format": 1}', "is damaged: content is None"),
        (b'{"format": 99}', r"has format 99 .accepted: 1"),
        (b'{"format": 1, "content": {}, "sha256": "0"}', "its SHA-256 is not the one it names"),
        (b"[" * 100_000, "is damaged"),
    ],
)
def test_a_manifest_that_is_none(saved: Path, text: bytes, message: str) -> None:
    (saved / "manifest.json").write_bytes(text)
    with pytest.raises(ArtifactError, match=message):
        open_artifact(saved)


def test_a_directory_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"No such file.*a directory of `nybble compile`"):
        open_artifact(tmp_path)


def test_a_manifest_of_endless_length(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "MAX_MANIFEST", 100)
    with pytest.raises(ArtifactError, match="is damaged: too long"):
        open_artifact(saved)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("nybble",), "0.0.0", r"is from nybble '0.0.0' .accepted: .*: compile the model again"),
        (("target", "triple"), "riscv64-unknown-linux-gnu", "which this host does not run"),
        (("target", "features"), ["+teleport"], "which this host does not run"),
        (("target", "features"), 5, "the target has no features"),
        (("target", "cpu"), None, "the target's cpu is None"),
        (("target",), None, "target is None"),
        (("files",), {}, "names no kernels.a"),
        (("files", "../../etc/passwd"), {"bytes": 1, "sha256": ""}, "has a file called '../../etc"),
        (("files", "weights.bin", "bytes"), 1 << 50, r"weights.bin has .* bytes .accepted: 1024"),
        (("files", "weights.bin", "bytes"), "many", "a file's size is 'many'"),
        (("plan",), None, "the plan is None"),
        (("plan", "buffers", 7, 1), 512, "needs 1024 bytes of 'table' from 0 on, and it has 512"),
        (("plan", "config", "chunk"), 10**9, "chunk: 1000000000"),
    ],
)
def test_a_manifest_that_lies(saved: Path, path, value, message: str) -> None:
    manifest = json.loads((saved / "manifest.json").read_text())
    parent = manifest["content"]
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = value
    manifest["sha256"] = content_digest(manifest["content"])
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=message):
        open_artifact(saved)


def test_code_for_a_lower_level_is_accepted(tmp_path: Path, toy) -> None:
    low = Machine(native().triple, "x86-64-v3" if "x86" in native().triple else "generic")
    save(tmp_path / "m", toy.plan, low, toy.objects, toy.weight)
    assert open_artifact(tmp_path / "m").machine == low


def test_archive_of_objects() -> None:
    members = [b"", b"a", b"bc", b"d" * 1000]
    packed = archive.pack(members)
    assert archive.unpack(packed) == members
    for bad in (b"", b"!<arch>", packed[:-1], packed + b"x", packed.replace(b"`\n", b"``")):
        with pytest.raises(ObjectError, match=r"archive"):
            archive.unpack(bad)
