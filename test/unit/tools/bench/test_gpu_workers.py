"""The child processes of test/bench/gpu.py: one that hangs or dies takes only its job along."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest

PARTS = Path(__file__).resolve().parents[3] / "bench" / "gpu_parts"
CHILD = """
import os, sys, time
sys.path.insert(0, {parts!r})
from workers import serve
def handle(job, say):
    say("begin " + job["do"])
    if job["do"] == "hang":
        time.sleep(60)
    if job["do"] == "die":
        os.kill(os.getpid(), 9)
    if job["do"] == "raise":
        raise ValueError("no such thing")
    if job["do"] == "fault":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    print("noise of a library")
    return os.getpid()
serve(handle)
"""


@pytest.fixture(scope="module")
def workers():
    spec = importlib.util.spec_from_file_location("gpu_workers", PARTS / "workers.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_workers"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def worker(workers, tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD.format(parts=str(PARTS)))
    one = workers.Worker([sys.executable, str(script)], tmp_path / "log")
    yield one
    one.stop()


def test_one_child_does_many_jobs(worker):
    first, second = (worker.do({"do": "work"}, 20) for _ in range(2))
    assert first.error == second.error == ""
    assert first.result == second.result > 0


def test_a_mistake_leaves_the_child_alive(worker):
    before = worker.do({"do": "work"}, 20).result
    wrong = worker.do({"do": "raise"}, 20)
    assert (wrong.error, wrong.at) == ("ValueError: no such thing", "begin raise")
    assert worker.do({"do": "work"}, 20).result == before


@pytest.mark.parametrize(
    ("what", "said"), [("die", "the process died (-9)"), ("fault", "illegal memory access")]
)
def test_after_a_death_or_a_fault_comes_another_child(worker, what, said):
    before = worker.do({"do": "work"}, 20).result
    outcome = worker.do({"do": what}, 20)
    assert said in outcome.error
    assert outcome.at == f"begin {what}"
    assert worker.do({"do": "work"}, 20).result not in (None, before)


def test_a_child_that_hangs_is_killed(worker):
    assert worker.do({"do": "work"}, 20).error == ""
    begun = time.monotonic()
    outcome = worker.do({"do": "hang"}, 0.5)
    assert outcome.error == "no answer within 0 s"
    assert outcome.at == "begin hang"
    assert time.monotonic() - begun < 30
    assert worker.do({"do": "work"}, 20).error == ""
