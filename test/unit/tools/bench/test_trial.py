"""Trials of buffer types in a process of their own, with made-up outcomes."""

import subprocess
from types import SimpleNamespace

import pytest

from nybble.tools.bench.peers import trial


@pytest.fixture
def outcome(monkeypatch):
    """Sets how the process of a trial ends."""
    trial.fault.cache_clear()

    def choose(code):
        def run(*_args, **_kwargs):
            if code is None:
                raise subprocess.TimeoutExpired("x", 1)
            return SimpleNamespace(returncode=code)

        monkeypatch.setattr(subprocess, "run", run)

    yield choose
    trial.fault.cache_clear()


@pytest.mark.parametrize(
    ("code", "message"),
    [(-11, "end the process"), (1, "are wrong"), (None, "do not end")],
)
def test_faults_are_named(outcome, code, message):
    outcome(code)
    assert message in trial.fault("AMX")


def test_what_works_has_no_fault(outcome):
    outcome(0)
    assert trial.fault("AMX") is None


def test_plain_memory_needs_no_trial(outcome):
    outcome(1)
    assert trial.fault("plain") is None


@pytest.mark.parametrize(("error", "code"), [(1e-5, 0), (0.5, 1)])
def test_exit_code_tells_right_from_wrong(monkeypatch, error, code):
    monkeypatch.setattr(trial, "try_buffer", lambda _buffer: error)
    monkeypatch.setattr("sys.argv", ["trial", "AMX"])
    assert trial.main() == code
