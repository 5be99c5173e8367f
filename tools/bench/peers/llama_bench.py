"""External programs with the interface of llama.cpp's llama-bench: run, and their JSON read.

They take part in the rounds as processes of their own: `PROGRAM -m MODEL -p N -n N -t N -r 1
-o json`, which print a list of records with n_prompt, n_gen, avg_ns and n_threads.
"""

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nybble.tools.bench.errors import BenchError

SECONDS = 600.0
SPELLING = "NAME=PATH, or 'NAME=PATH OPTIONS'"
_SHOWN = 200  # characters of an answer that a message quotes


@dataclass(frozen=True)
class External:
    """A program as the user named it, with options of its own."""

    name: str
    program: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """What a program is to measure: tokens of a prompt, and tokens decoded at a depth."""

    model: Path
    threads: int
    prompt: int = 0
    decode: int = 0
    depth: int = 0


def parse_external(text: str) -> External:
    """`NAME=PATH [OPTIONS]` from the command line; raises BenchError, also for a missing file."""
    name, equals, rest = text.partition("=")
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise BenchError(f"cannot split '{rest}': {error}", accepted=SPELLING) from None
    if not name or not equals or not words:
        raise BenchError(f"'{text}' names no program", accepted=SPELLING)
    program = shutil.which(words[0])
    if program is None or not os.access(program, os.X_OK):
        raise BenchError(f"no program '{words[0]}' to run as '{name}'", accepted=SPELLING)
    return External(name, program, tuple(words[1:]))


def command(external: External, job: Job) -> list[str]:
    """The command line of one job."""
    line = [external.program, "-m", str(job.model), "-t", str(job.threads), "-r", "1"]
    line += ["-p", str(job.prompt), "-n", str(job.decode), "-o", "json"]
    if job.depth:
        line += ["-d", str(job.depth)]
    return [*line, *external.options]


def run_external(external: External, job: Job) -> float:
    """The seconds that the program reports for the job; raises BenchError if it reports none."""
    line = command(external, job)
    try:
        ended = subprocess.run(line, capture_output=True, timeout=SECONDS, check=False)
    except OSError as error:
        raise BenchError(f"'{external.name}' cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise BenchError(f"'{external.name}' did not end in {SECONDS:g} s") from None
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip().splitlines()
        raise BenchError(
            f"'{external.name}' ended with {ended.returncode}: {said[-1] if said else 'no message'}"
        )
    return parse_answer(external.name, ended.stdout.decode(errors="replace"), job)


def parse_answer(name: str, text: str, job: Job) -> float:
    """Seconds of the fastest record of `job` in a program's output; raises BenchError."""
    start = text.find("[")  # some forks print a line about the machine first
    try:
        records = json.loads(text[start:]) if start >= 0 else None
    except json.JSONDecodeError as error:
        raise BenchError(f"'{name}' did not print JSON: {error}") from None
    if not isinstance(records, list):
        raise BenchError(f"'{name}' printed no list of records: {text[:_SHOWN]!r}")
    found: list[Any] = records
    seconds = [value for record in found if (value := _seconds(record, job)) is not None]
    if not seconds:
        raise BenchError(f"'{name}' reported nothing about {job.prompt} + {job.decode} tokens")
    return min(seconds)


def _seconds(record: object, job: Job) -> float | None:
    """The seconds of a record, or None if it is of another job or has no time."""
    if not isinstance(record, dict):
        return None
    fields: dict[Any, Any] = record
    sizes = (fields.get("n_prompt"), fields.get("n_gen"), fields.get("n_depth", 0))
    time = fields.get("avg_ns")
    if sizes != (job.prompt, job.decode, job.depth) or not isinstance(time, (int, float)):
        return None
    return time / 1e9 if time > 0 else None
