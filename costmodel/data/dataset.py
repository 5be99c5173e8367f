"""Measurements as arrays: what models learn from and are judged by, in memory and as Parquet."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nybble.costmodel.canonical import parse
from nybble.costmodel.data.measurement import Measurement, Stand, spelled
from nybble.costmodel.features.facts import Facts, facts_of
from nybble.costmodel.features.table import Call
from nybble.dialects.errors import NybbleError

F64 = npt.NDArray[np.float64]
COLUMNS = ("text", "tokens", "shares", "cached", "options", "first", "second", "code")


class DatasetError(NybbleError):
    """A file that is no dataset of measurements."""


@dataclass(frozen=True)
class Group:
    """One workload by all dataflows and schedules that were measured: what a search chooses among.

    facts: of each row. seconds: the least. halves: f64 [n, 2], the least of every other round,
    which tells what noise there is. code: counts of the compiled kernel.
    """

    problem: str
    call: Call
    facts: Sequence[Facts]
    options: Sequence[dict[str, int]]
    seconds: F64
    halves: F64
    code: Sequence[dict[str, int]] = field(repr=False)

    @property
    def name(self) -> str:
        """For people."""
        after = f" after {self.call.cached}" if self.call.cached else ""
        return f"{self.problem} n={self.call.tokens} 1/{self.call.shares}{after}"

    def __len__(self) -> int:
        return len(self.options)


@dataclass(frozen=True)
class Record:
    """A measurement that succeeded, without the stand it was made at."""

    text: str
    tokens: int
    shares: int
    cached: int
    options: str
    halves: tuple[float, float]
    code: str


def record(one: Measurement) -> Record:
    """What a dataset keeps of a measurement."""
    odd, even = one.rounds[::2], one.rounds[1::2] or one.rounds
    work = one.workload
    return Record(
        work.text,
        work.tokens,
        work.shares,
        work.cached,
        spelled(one.options),
        (min(odd), min(even)),
        spelled(one.code),
    )


def groups_of(records: Iterable[Record]) -> list[Group]:
    """Workloads with all their candidates, in the order in which they first come."""
    facts: dict[str, Facts] = {}
    rows: dict[tuple[str, Call], list[tuple[Facts, Record]]] = {}
    for one in records:
        if one.text not in facts:
            facts[one.text] = facts_of(parse(one.text))
        found = facts[one.text]
        call = Call(one.tokens, one.shares, one.cached)
        rows.setdefault((found.problem, call), []).append((found, one))
    return [_group(key, found) for key, found in rows.items()]


def _group(key: tuple[str, Call], rows: Sequence[tuple[Facts, Record]]) -> Group:
    halves = np.array([one.halves for _, one in rows], np.float64)
    return Group(
        *key,
        [facts for facts, _ in rows],
        [json.loads(one.options) for _, one in rows],
        halves.min(axis=1),
        halves,
        [json.loads(one.code) for _, one in rows],
    )


def write_parquet(records: Sequence[Record], stand: Stand, path: Path) -> int:
    """Write a dataset; the bytes it takes. Raises DatasetError without room or pyarrow."""
    pa, pq = _arrow()
    table = pa.table(
        {
            "text": pa.array([one.text for one in records]).dictionary_encode(),
            "tokens": pa.array([one.tokens for one in records], pa.int32()),
            "shares": pa.array([one.shares for one in records], pa.int16()),
            "cached": pa.array([one.cached for one in records], pa.int32()),
            "options": pa.array([one.options for one in records]).dictionary_encode(),
            "first": pa.array([one.halves[0] for one in records], pa.float32()),
            "second": pa.array([one.halves[1] for one in records], pa.float32()),
            "code": pa.array([one.code for one in records]).dictionary_encode(),
        }
    ).replace_schema_metadata({"target": stand.target, "compiler": stand.compiler})
    try:
        pq.write_table(table, path, compression="zstd", compression_level=19)
    except OSError as fault:
        raise DatasetError(f"cannot write {path}: {fault.strerror or fault}") from fault
    return path.stat().st_size


def read_parquet(path: Path) -> tuple[list[Record], Stand]:
    """The records of a dataset and where they are from; raises DatasetError."""
    pa, pq = _arrow()
    try:
        table = pq.read_table(path)
        rows = table.to_pydict()
        meta = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        records = [
            Record(text, tokens, shares, cached, options, (float(first), float(second)), code)
            for text, tokens, shares, cached, options, first, second, code in zip(
                *(rows[name] for name in COLUMNS), strict=True
            )
        ]
        return records, Stand(meta["target"], meta["compiler"])
    except (pa.ArrowException, OSError, KeyError, AttributeError, TypeError, ValueError) as fault:
        raise DatasetError(
            f"{path} is no dataset of measurements ({fault})", accepted="what cost export writes"
        ) from fault


def _arrow() -> tuple[object, object]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as fault:
        raise DatasetError(
            "Parquet needs pyarrow", accepted="pip install 'nybble[cost]'"
        ) from fault
    return pa, pq
