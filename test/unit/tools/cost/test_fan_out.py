"""Measuring on several devices: one dies in the middle, and nothing is lost or there twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nybble.costmodel.data.log import Log
from nybble.costmodel.data.measurement import Measurement, Stand, Workload
from nybble.tools.cost.fan_out import FanOut, FanOutError

DEADLY = 5


class Work:
    """Measures a number; the device of DEADLY is killed the first time, after half of it."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __call__(self, number: int) -> tuple[int, int]:
        with Log(self.log) as log:
            log.add([_measurement(number, 0)])
            marker = self.log.with_name("died")
            if number == DEADLY and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), 9)
            log.add([_measurement(number, 0), _measurement(number, 1)])
        return number, os.getpid()


def _measurement(number: int, half: int) -> Measurement:
    return Measurement(Workload("w", number), {"x": half}, Stand("t", "c"), (1e-6,))


def fan_out(log: Path) -> dict[str, object]:
    """What a cluster of three devices on this machine made of a dozen numbers."""
    results: list[tuple[int, int]] = []

    def collected(result: tuple[int, int]) -> bool:
        results.append(result)
        return True

    count = FanOut("local", devices=3).run(range(1, 13), Work(log), collected)
    return {"count": count, "results": results}


@pytest.mark.slow
def test_a_device_that_dies_costs_nothing(tmp_path: Path):
    pytest.importorskip("ray")
    log = tmp_path / "log.db"
    patient = {**os.environ, "RAY_raylet_start_wait_time_s": "300"}
    ran = subprocess.run(
        [sys.executable, __file__, str(log)],
        check=True,
        capture_output=True,
        text=True,
        env=patient,
        timeout=400,
    )
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["count"] == 3
    assert (tmp_path / "died").exists()
    assert sorted(number for number, _ in found["results"]) == [*range(1, 13)]
    with Log(log, create=False) as kept:
        logged = [(one.workload.tokens, one.options["x"]) for one in kept.measurements()]
    assert sorted(logged) == [(number, half) for number in range(1, 13) for half in (0, 1)]


def test_no_ray(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(FanOutError, match="fanning out needs Ray") as caught:
        FanOut("local").run([], print, bool)
    assert caught.value.accepted == "pip install 'nybble[ray]'"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(fan_out(Path(sys.argv[1]))) + "\n")
