"""External programs: how they are named, called and read, and what can go wrong."""

import json
from pathlib import Path

import pytest

from nybble.tools.bench.errors import BenchError
from nybble.tools.bench.peers import llama_bench
from nybble.tools.bench.peers.llama_bench import (
    External,
    Job,
    command,
    parse_answer,
    parse_external,
    run_external,
)

PROMPT = Job(Path("m.gguf"), 2, prompt=512)
DEEP = Job(Path("m.gguf"), 1, decode=64, depth=512)


def record(job, seconds, **more):
    """What llama-bench prints about a job."""
    sizes = {"n_prompt": job.prompt, "n_gen": job.decode, "n_depth": job.depth}
    return {**sizes, "n_threads": job.threads, "avg_ns": int(seconds * 1e9), **more}


def program(folder, body):
    """An executable script."""
    path = folder / "fake-bench"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_name_path_and_options(tmp_path):
    path = program(tmp_path, "exit 0")
    assert parse_external(f"mine={path}") == External("mine", str(path))
    assert parse_external(f"ik='{path}' -rtr 1").options == ("-rtr", "1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine", "names no program"),
        ("mine=", "names no program"),
        ("=/bin/true", "names no program"),
        ("mine=/no/such/llama-bench", "no program '/no/such/llama-bench'"),
        ("mine='/bin/true", "cannot split"),
    ],
)
def test_bad_names_are_told(text, message):
    with pytest.raises(BenchError, match=message):
        parse_external(text)


def test_a_file_that_is_no_program(tmp_path):
    path = tmp_path / "data"
    path.write_text("")
    with pytest.raises(BenchError, match="no program"):
        parse_external(f"mine={path}")


def test_command_line():
    line = command(External("a", "/bin/b", ("-fa", "1")), DEEP)
    assert " ".join(line) == "/bin/b -m m.gguf -t 1 -r 1 -p 0 -n 64 -o json -d 512 -fa 1"
    assert "-d" not in command(External("a", "/bin/b"), PROMPT)


def test_fastest_matching_record_counts():
    records = [record(PROMPT, 3.0), record(PROMPT, 2.0), record(DEEP, 0.5)]
    assert parse_answer("a", json.dumps(records), PROMPT) == 2.0


def test_older_programs_say_nothing_of_depth():
    records = [{"n_prompt": 512, "n_gen": 0, "avg_ns": 10**9}]
    assert parse_answer("a", json.dumps(records), PROMPT) == 1.0


def test_a_line_before_the_json_is_skipped():
    text = "ggml: found 1 device\n" + json.dumps([record(PROMPT, 1.0)])
    assert parse_answer("a", text, PROMPT) == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no list of records"),
        ("{}", "no list of records"),
        ("[{", "did not print JSON"),
        ("[]", "nothing about 512"),
        ("[1, null]", "nothing about"),
        (json.dumps([record(DEEP, 1.0)]), "nothing about"),
        (json.dumps([record(PROMPT, 0.0)]), "nothing about"),
        (json.dumps([record(PROMPT, 1.0, avg_ns="fast")]), "nothing about"),
    ],
)
def test_answers_that_cannot_be_used(text, message):
    with pytest.raises(BenchError, match=message):
        parse_answer("a", text, PROMPT)


def test_runs_a_program(tmp_path):
    path = program(tmp_path, f"echo '{json.dumps([record(PROMPT, 1.5)])}'")
    assert run_external(External("mine", str(path)), PROMPT) == 1.5


def test_a_program_that_fails_is_quoted(tmp_path):
    path = program(tmp_path, "echo first >&2; echo 'error: no model' >&2; exit 3")
    with pytest.raises(BenchError, match="'mine' ended with 3: error: no model"):
        run_external(External("mine", str(path)), PROMPT)


def test_a_program_that_does_not_end(tmp_path, monkeypatch):
    monkeypatch.setattr(llama_bench, "SECONDS", 0.2)
    path = program(tmp_path, "exec sleep 30")
    with pytest.raises(BenchError, match=r"did not end in 0\.2 s"):
        run_external(External("mine", str(path)), PROMPT)


def test_a_program_for_another_system(tmp_path):
    path = tmp_path / "garbage"
    path.write_bytes(b"\x00\x01")
    path.chmod(0o755)
    with pytest.raises(BenchError, match="cannot be run"):
        run_external(External("mine", str(path)), PROMPT)
