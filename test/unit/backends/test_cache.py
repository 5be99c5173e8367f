"""The cache keeps whole entries under concurrent writers, killed writers and damage."""

import os
import signal
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep

import pytest

from nybble.backends.cache import Cache, CacheError

KEY = sha256(b"key").hexdigest()
OTHER = sha256(b"other").hexdigest()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "deep" / "cache")


def temporaries(cache: Cache) -> list[Path]:
    return list(cache.directory.glob("tmp-*"))


def only_file(cache: Cache) -> Path:
    (entry,) = cache.directory.glob("??/*")
    return entry


def python(program: str, *arguments: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_get_what_was_put(cache: Cache) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, b"one")
    assert cache.get(KEY) == b"one"
    cache.put(KEY, b"")
    assert cache.get(KEY) == b""
    assert cache.get(OTHER) is None
    assert Cache(cache.directory).get(KEY) == b""


def test_only_the_owner_has_access(cache: Cache) -> None:
    cache.put(KEY, b"data")
    assert stat.S_IMODE(cache.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(only_file(cache).stat().st_mode) == 0o600


def test_list_size_and_clear(cache: Cache) -> None:
    cache.put(KEY, b"a" * 1000)
    cache.put(OTHER, b"b" * 10)
    assert {entry.key for entry in cache.entries()} == {KEY, OTHER}
    assert 1010 < cache.size() < 1200
    assert cache.size() == sum(entry.bytes for entry in cache.entries())
    assert cache.clear() == 2
    assert (cache.size(), cache.get(KEY), list(cache.entries())) == (0, None, [])
    cache.put(KEY, b"again")
    assert cache.get(KEY) == b"again"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-2] + b"??",
        lambda data: b"?" + data[1:],
    ],
)
def test_a_damaged_entry_is_ignored_and_replaced(cache: Cache, damage) -> None:
    cache.put(KEY, b"contents")
    path = only_file(cache)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(KEY) is None
    cache.put(KEY, b"contents")
    assert cache.get(KEY) == b"contents"


def test_an_entry_under_the_name_of_another_is_ignored(cache: Cache) -> None:
    cache.put(KEY, b"contents")
    cache.put(OTHER, b"others")
    other = cache.directory / OTHER[:2] / OTHER[2:]
    other.write_bytes((cache.directory / KEY[:2] / KEY[2:]).read_bytes())
    assert cache.get(OTHER) is None


@pytest.mark.parametrize("key", ["", "ABCDEF0123456789", "../../../../etc/passwd", "0123"])
def test_a_key_is_a_digest(cache: Cache, key: str) -> None:
    with pytest.raises(ValueError, match="is no cache key"):
        cache.put(key, b"")


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_directory_that_others_write_to(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(CacheError, match=r"others can change .*of your own with mode 0700"):
        Cache(tmp_path)


def test_a_directory_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(CacheError, match="others can change"):
        Cache(tmp_path)


def test_a_place_that_cannot_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(CacheError, match="cannot make the cache"):
            Cache(path)


def test_a_failed_write_leaves_nothing(cache: Cache) -> None:
    (cache.directory / KEY[:2]).write_text("a file where the folder should be")
    with pytest.raises(CacheError, match="cannot write"):
        cache.put(KEY, b"data")
    assert temporaries(cache) == []


WRITER = """
import sys
from pathlib import Path
from nybble.backends.cache import Cache
cache, key, mine = Cache(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
for _ in range(40):
    cache.put(key, bytes([mine]) * 200_000)
    found = cache.get(key)
    if found is None or len(found) != 200_000 or len(set(found)) != 1:
        sys.exit("torn entry")
"""


def test_many_processes_write_one_key(cache: Cache) -> None:
    writers = [python(WRITER, cache.directory, KEY, mine) for mine in range(6)]
    assert [writer.wait(60) for writer in writers] == [0] * 6
    for writer in writers:
        writer.communicate()
    found = cache.get(KEY)
    assert found is not None
    assert len(found) == 200_000
    assert temporaries(cache) == []


KILLED = """
import os, sys
from pathlib import Path
from nybble.backends.cache import Cache
real = os.fsync
def halted(descriptor):
    print("in the middle", flush=True)
    sys.stdin.read()
os.fsync = halted
Cache(Path(sys.argv[1])).put(sys.argv[2], b"half " * 1000)
"""


def test_a_writer_killed_in_the_middle(cache: Cache) -> None:
    cache.put(KEY, b"before")
    command = [sys.executable, "-c", KILLED, str(cache.directory), KEY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"in the middle\n"
        Cache(cache.directory)
        assert len(temporaries(cache)) == 1, "the file of a living writer was deleted"
        writer.send_signal(signal.SIGKILL)
        writer.wait(30)
    assert cache.get(KEY) == b"before"
    assert len(temporaries(cache)) == 1
    assert Cache(cache.directory).get(KEY) == b"before"
    assert temporaries(cache) == []


def test_writers_killed_at_any_moment(cache: Cache) -> None:
    patience = monotonic() + 30
    for delay in (0.0, 0.001, 0.003, 0.007, 0.02):
        writer = python(WRITER, cache.directory, KEY, 7)
        while not (temporaries(cache) or cache.get(KEY)) and monotonic() < patience:
            sleep(0.001)
        sleep(delay)
        writer.kill()
        writer.communicate()
        assert cache.get(KEY) in (None, b"\7" * 200_000)
        assert cache.clear() in (0, 1)
        assert temporaries(cache) == []


def test_a_sweep_between_creation_and_lock(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    real, stolen = fcntl.flock, []

    def flock(file, operation: int) -> None:
        if not stolen:
            stolen.extend(temporaries(cache))
            stolen[0].unlink()
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    cache.put(KEY, b"data")
    assert len(stolen) == 1
    assert cache.get(KEY) == b"data"
    assert temporaries(cache) == []
