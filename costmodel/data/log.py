"""The log of measurements: an SQLite file that only grows, and that several processes may write.

A measurement is written whole or not at all, and a key is there once: who writes it again changes
nothing. So a collection that was interrupted goes on where it was.
"""

import json
import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from nybble.costmodel.data.measurement import Measurement, Stand, Workload, spelled
from nybble.dialects.errors import NybbleError

VERSION = 1
_WAIT = 30.0  # seconds for another writer to finish

_TABLES = """
create table if not exists workloads (
    name text primary key, text text not null, tokens integer not null, shares integer not null,
    cached integer not null
) without rowid;
create table if not exists measurements (
    key text primary key, workload text not null references workloads (name),
    options text not null, target text not null, compiler text not null,
    rounds text not null, code text not null, failure text
);
"""


class LogError(NybbleError):
    """A log of measurements that cannot be read or written."""


class Log:
    """An open log; made where there is none, unless it is only to be read."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        if not create and not path.is_file():
            raise LogError(f"no log of measurements at {path}", accepted="nybble cost collect")
        with self._told():
            self._db = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
            self._prepare()

    def _prepare(self) -> None:
        version = self._db.execute("pragma user_version").fetchone()[0]
        tables = self._db.execute("select count(*) from sqlite_master").fetchone()[0]
        if tables and version != VERSION:
            raise LogError(
                f"{self.path} is a log of version {version}", accepted=f"version {VERSION}"
            )
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = normal")
        self._db.executescript(_TABLES)
        self._db.execute(f"pragma user_version = {VERSION}")

    def close(self) -> None:
        """Writes what is held back, and lets go of the file."""
        with self._told():
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def keys(self) -> set[str]:
        """The keys of all measurements, failures among them."""
        with self._told():
            return {row[0] for row in self._db.execute("select key from measurements")}

    def add(self, measurements: Iterable[Measurement]) -> int:
        """Append those that are not there yet, all or none; how many these are."""
        with self._told():
            self._db.execute("begin immediate")
            try:
                added = sum(self._add(one) for one in measurements)
            except BaseException:
                if self._db.in_transaction:  # a full disk has rolled back already
                    self._db.execute("rollback")
                raise
            self._db.execute("commit")
        return added

    def _add(self, one: Measurement) -> int:
        work = one.workload
        self._db.execute(
            "insert or ignore into workloads values (?, ?, ?, ?, ?)",
            (work.name, work.text, work.tokens, work.shares, work.cached),
        )
        row = (
            one.key,
            work.name,
            spelled(one.options),
            one.stand.target,
            one.stand.compiler,
            json.dumps(one.rounds),
            json.dumps(dict(one.code)),
            one.failure,
        )
        done = self._db.execute(
            "insert or ignore into measurements values (?, ?, ?, ?, ?, ?, ?, ?)", row
        )
        return done.rowcount

    def measurements(self) -> Iterator[Measurement]:
        """All of them, in the order in which they were written."""
        with self._told():
            works = {
                name: Workload(*rest) for name, *rest in self._db.execute("select * from workloads")
            }
            rows = self._db.execute(
                "select workload, options, target, compiler, rounds, code, failure "
                "from measurements order by rowid"
            )
            for work, options, target, compiler, rounds, code, failure in rows:
                yield Measurement(
                    works[work],
                    json.loads(options),
                    Stand(target, compiler),
                    tuple(json.loads(rounds)),
                    json.loads(code),
                    failure,
                )

    @contextmanager
    def _told(self) -> Generator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except sqlite3.Error as fault:
            raise self._error(fault) from fault

    def _error(self, fault: sqlite3.Error) -> LogError:
        said = str(fault)
        if "full" in said:
            return LogError(
                f"no room on the disk of {self.path}; what was measured before is kept",
                accepted="free some space and start again: it goes on where it was",
            )
        if isinstance(fault, sqlite3.DatabaseError) and (
            "not a database" in said or "malformed" in said
        ):
            return LogError(
                f"{self.path} is damaged, or no log of measurements ({said})",
                accepted="another file; `sqlite3 FILE .recover` may save what is in it",
            )
        return LogError(f"cannot use {self.path}: {said}")
