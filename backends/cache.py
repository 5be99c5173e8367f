"""A directory of compiled code that many processes may read and write, and any may be killed in.

Each entry is one file: a header with the digest of the rest. It is written under a temporary name,
flushed to the disk and renamed, so that an entry is there whole or not at all; an entry whose
digest is wrong does not count and is replaced. There are no locks to wait for: two writers of a
key write equal entries, and the later rename wins. A writer locks only its own temporary file;
the kernel drops that lock when it dies, which tells the next one to delete what it left.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from re import compile as pattern
from stat import S_ISDIR

from nybble.dialects.errors import NybbleError

MAGIC = b"nybble-cache-1\n"
DIGEST = 32  # bytes
KEY = pattern(r"[0-9a-f]{16,128}")
TEMPORARY = "tmp-"


class CacheError(NybbleError):
    """A cache directory that cannot be used, or must not be trusted."""


@dataclass(frozen=True)
class Entry:
    """One stored item: its key and its size on disk in bytes."""

    key: str
    bytes: int


class Cache:
    """Bytes by key (lower-case hex digits of a digest of all that they depend on).

    directory: made if it is missing, with access for its owner alone. Raises CacheError if it
    belongs to somebody else or others may write to it: what is in it will be run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = directory.stat()
        except OSError as error:
            raise CacheError(f"cannot make the cache {directory}: {error.strerror}") from None
        if not S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            raise CacheError(
                f"others can change what is in the cache {directory}",
                accepted="a directory of your own with mode 0700",
            )
        self._sweep()

    def get(self, key: str) -> bytes | None:
        """What was stored under `key`; None if nothing was, or if it is damaged."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        start = len(MAGIC) + DIGEST
        body = data[start:]
        whole = data.startswith(MAGIC) and data[len(MAGIC) : start] == _digest(key, body)
        return body if whole else None

    def put(self, key: str, data: bytes) -> None:
        """Stores `data` under `key` in place of what was there.

        Raises CacheError if the disk does not take it; readers then find what was there before.
        """
        path = self._path(key)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            self._publish(path, MAGIC + _digest(key, data) + data)
        except OSError as error:
            raise CacheError(f"cannot write {path}: {error.strerror}") from None

    def entries(self) -> Iterator[Entry]:
        """All entries, by key."""
        for path in sorted(self.directory.glob("[0-9a-f][0-9a-f]/*")):
            with suppress(OSError):  # another process may delete it meanwhile
                yield Entry(path.parent.name + path.name, path.stat().st_size)

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(entry.bytes for entry in self.entries())

    def clear(self) -> int:
        """Deletes all entries and what dead writers left; returns how many entries there were."""
        self._sweep()
        count = 0
        for entry in list(self.entries()):
            with suppress(OSError):
                self._path(entry.key).unlink()
                count += 1
        return count

    def _path(self, key: str) -> Path:
        if KEY.fullmatch(key) is None:
            raise ValueError(f"{key!r} is no cache key")
        return self.directory / key[:2] / key[2:]

    def _publish(self, path: Path, data: bytes) -> None:
        while not self._written(path, data):
            pass  # a sweep took the file between its creation and its lock: once more

    def _written(self, path: Path, data: bytes) -> bool:
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY, dir=self.directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_nlink == 0:
                    return False
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                Path(name).replace(path)
        except OSError:
            with suppress(OSError):
                Path(name).unlink()
            raise
        return True

    def _sweep(self) -> None:
        """Deletes the temporary files whose writers are dead."""
        for path in self.directory.glob(TEMPORARY + "*"):
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _digest(key: str, data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST, key=key[:64].encode()).digest()
