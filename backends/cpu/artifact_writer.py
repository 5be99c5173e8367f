"""Writes an artifact directory (see artifact.py): a finished one is renamed into place."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nybble.backends.cpu import archive, arena
from nybble.backends.cpu.artifact import (
    FORMAT,
    KERNELS,
    MANIFEST,
    WEIGHTS,
    ArtifactError,
    content_digest,
)
from nybble.backends.cpu.machine import Machine
from nybble.backends.cpu.plan import Json, Kind, Plan
from nybble.backends.cpu.plan_json import to_json
from nybble.backends.llvm.toolchain import versions


def save(
    directory: Path,
    plan: Plan,
    machine: Machine,
    objects: list[bytes],
    weight: Callable[[str], NDArray[np.generic]],
    extra: Mapping[str, bytes] | None = None,
) -> None:
    """Writes an artifact; one that stands at `directory` is replaced.

    objects: object code for `machine`, with the plan runner among it; weight: gives the packed
    bytes of each weight buffer, called in the plan's order, so that one at a time is in memory;
    extra: further files by name. Raises ArtifactError, and then nothing has changed on disk.
    """
    target = directory.absolute()
    _check_target(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            temporary.chmod(0o755)
            _write(temporary, plan, machine, objects, weight, extra or {})
            _publish(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise ArtifactError(f"cannot write {directory}: {error.strerror}") from None


def _check_target(target: Path) -> None:
    if target.is_dir() and not (target / MANIFEST).is_file() and any(target.iterdir()):
        raise ArtifactError(
            f"{target} holds other files", accepted="a new or empty directory, or an artifact"
        )
    if target.exists() and not target.is_dir():
        raise ArtifactError(f"{target} is a file", accepted="a directory")


def _write(
    directory: Path,
    plan: Plan,
    machine: Machine,
    objects: list[bytes],
    weight: Callable[[str], NDArray[np.generic]],
    extra: Mapping[str, bytes],
) -> None:
    files: dict[str, Json] = {}
    for name, data in {**extra, KERNELS: archive.pack(objects)}.items():
        with _Writer(directory, name) as writer:
            writer.write(data)
        files[name] = writer.facts()
    with _Writer(directory, WEIGHTS) as writer:
        for buffer in plan.of_kind(Kind.WEIGHT):
            array = np.ascontiguousarray(weight(buffer.name))
            if array.nbytes != buffer.bytes:
                raise ArtifactError(
                    f"weight '{buffer.name}' has {array.nbytes} bytes", accepted=str(buffer.bytes)
                )
            writer.write(array.reshape(-1).view(np.uint8).data)
            writer.write(bytes(arena.aligned(buffer.bytes) - buffer.bytes))
    files[WEIGHTS] = writer.facts()
    content: dict[str, Json] = {
        "nybble": metadata.version("nybble"),
        "compiler": versions(),
        "target": {
            "triple": machine.triple,
            "cpu": machine.cpu,
            "features": list[Json](machine.features),
        },
        "files": files,
        "plan": to_json(plan),
    }
    manifest: dict[str, Json] = {
        "format": FORMAT,
        "sha256": content_digest(content),
        "content": content,
    }
    with _Writer(directory, MANIFEST) as writer:
        writer.write(json.dumps(manifest, separators=(",", ":")).encode())


class _Writer:
    """A new file whose bytes are counted and digested, and on the disk when it is closed."""

    def __init__(self, directory: Path, name: str) -> None:
        self._file = (directory / name).open("xb")
        self._digest = sha256()
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._bytes += len(data)

    def facts(self) -> Json:
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}


def _publish(temporary: Path, target: Path) -> None:
    """Renames the finished directory into place, by way of a moment without one if it replaces."""
    old = temporary.with_name(temporary.name + ".old")
    if target.exists():
        target.rename(old)
    temporary.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    parent = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
