"""A compiled model on disk: a directory that needs neither torch nor the compiler to run.

    manifest.json   format, versions, target, plan, and size and SHA-256 of each other file
    kernels.a       object code of the kernels and of the plan runner
    weights.bin     packed weights in the plan's order, each at a multiple of 64 bytes
    tokenizer.json  and other files that the maker added

artifact_writer.py writes it whole or not at all; here it is read, and nothing in it is used before
its digest was compared. The digests find damage, not malice: object code is a program, so run only
artifacts that you trust.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from re import fullmatch
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from nybble.backends.cpu import archive, arena
from nybble.backends.cpu.host import allocate
from nybble.backends.cpu.machine import Machine, native
from nybble.backends.cpu.plan import Json, Plan, PlanError
from nybble.backends.cpu.plan_json import as_object, as_scalar, from_json
from nybble.dialects.errors import NybbleError

FORMAT = 1
MANIFEST, KERNELS, WEIGHTS = "manifest.json", "kernels.a", "weights.bin"
MAX_MANIFEST = 64 << 20  # bytes
BLOCK = 1 << 20  # bytes read and digested at a time: what stays in the cache

Bytes = NDArray[np.uint8]


class ArtifactError(NybbleError):
    """A directory that is not an artifact, is damaged, or is for another machine or version."""


@dataclass(frozen=True)
class FileFacts:
    """Size in bytes and hex SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """An artifact whose manifest was read and checked; the other files are checked when read."""

    directory: Path
    plan: Plan
    machine: Machine
    files: Mapping[str, FileFacts]

    def read(self, name: str) -> bytes:
        """The verified contents of one of the files."""
        return self._load(name).tobytes()

    def objects(self) -> list[bytes]:
        """The verified object files."""
        return archive.unpack(self.read(KERNELS))

    def weights(self) -> Bytes:
        """The verified contents of weights.bin, u8, in huge pages where there are any."""
        return self._load(WEIGHTS)

    def _load(self, name: str) -> Bytes:
        path = self.directory / name
        facts = self.files.get(name)
        if facts is None:
            raise ArtifactError(f"{self.directory} has no {name}", accepted=", ".join(self.files))
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno()).st_size
                if found != facts.bytes:
                    raise ArtifactError(f"{path} has {found} bytes", accepted=str(facts.bytes))
                data = allocate(facts.bytes)
                digest = _read_into(file, data)
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error.strerror}") from None
        if digest != facts.sha256:
            raise ArtifactError(f"{path} is damaged: its SHA-256 is not the manifest's")
        return data


def _read_into(file: IO[bytes], data: Bytes) -> str:
    digest = sha256()
    view = data.data
    for start in range(0, len(view), BLOCK):
        block = view[start : start + BLOCK]
        count = 0
        while count < len(block):
            got = file.readinto(block[count:])  # type: ignore[attr-defined]
            if not got:
                raise ArtifactError(f"{file.name} ended early")
            count += got
        digest.update(block)
    return digest.hexdigest()


def content_digest(content: dict[str, Json]) -> str:
    """Hex SHA-256 of the manifest's content, whatever its spacing and order."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def open_artifact(directory: Path) -> Artifact:
    """The artifact at `directory`; raises ArtifactError if it cannot run here."""
    content = _read_manifest(directory / MANIFEST)
    try:
        machine = _machine(as_object(content.get("target"), "target"))
        files = {
            name: _facts(as_object(value, "a file"))
            for name, value in as_object(content.get("files"), "files").items()
        }
        plan = from_json(content.get("plan"))
    except PlanError as error:
        raise ArtifactError(
            f"{directory / MANIFEST}: {error.message}", accepted=error.accepted
        ) from None
    _check_files(directory, files, plan)
    if not native().runs(machine):
        raise ArtifactError(
            f"{directory} was compiled for {machine}, which this host does not run",
            accepted=str(native()),
        )
    return Artifact(directory, plan, machine, files)


def _read_manifest(path: Path) -> dict[str, Json]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST + 1)
    except OSError as error:
        raise ArtifactError(
            f"cannot read {path}: {error.strerror}", accepted="a directory of `nybble compile`"
        ) from None
    try:
        if len(data) > MAX_MANIFEST:
            raise ValueError("too long")
        manifest = as_object(cast("Json", json.loads(data)), "it")
        found = manifest.get("format")
        if found != FORMAT:
            raise ArtifactError(f"{path} has format {found!r:.40}", accepted=str(FORMAT))
        content = as_object(manifest.get("content"), "content")
        if content_digest(content) != manifest.get("sha256"):
            raise ValueError("its SHA-256 is not the one it names")
    except (ValueError, RecursionError, PlanError) as error:
        raise ArtifactError(f"{path} is damaged: {str(error)[:200]}") from None
    version = metadata.version("nybble")
    if content.get("nybble") != version:
        raise ArtifactError(
            f"{path} is from nybble {content.get('nybble')!r:.40}",
            accepted=f"{version}: compile the model again",
        )
    return content


def _machine(table: dict[str, Json]) -> Machine:
    features = table.get("features")
    if not isinstance(features, list):
        raise PlanError("the target has no features")
    return Machine(
        as_scalar(table.get("triple"), str, "the target's triple"),
        as_scalar(table.get("cpu"), str, "the target's cpu"),
        tuple(as_scalar(feature, str, "a feature of the target") for feature in features),
    )


def _facts(table: dict[str, Json]) -> FileFacts:
    return FileFacts(
        as_scalar(table.get("bytes"), int, "a file's size"),
        as_scalar(table.get("sha256"), str, "a file's digest"),
    )


def _check_files(directory: Path, files: Mapping[str, FileFacts], plan: Plan) -> None:
    for name in files:
        if not fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
            raise ArtifactError(f"{directory} has a file called {name!r:.40}", accepted="a name")
    for name in (KERNELS, WEIGHTS):
        if name not in files:
            raise ArtifactError(f"{directory / MANIFEST} names no {name}")
    needed = arena.weights(plan).bytes
    if files[WEIGHTS].bytes != needed:
        raise ArtifactError(
            f"{directory / WEIGHTS} has {files[WEIGHTS].bytes} bytes", accepted=str(needed)
        )
