"""The whole run: each case in a child process with a time limit, results written as they come."""

import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_parts.table import render
from gpu_parts.workers import Outcome, Worker

FIRST_SECONDS = 60.0
"""A child's first job also waits for imports and for the driver."""


@dataclass
class Plan:
    """What to run: folder: what --build wrote; limit: seconds for all of it together."""

    folder: Path
    json: Path
    quick: bool
    limit: float
    only: str = ""
    peers: bool = True
    simulated: bool = False
    lost: dict[str, str] = field(default_factory=dict)


def chosen(plan: Plan) -> list[dict[str, Any]]:
    """The cases of the folder that the options leave, in order of importance."""
    cases = json.loads((plan.folder / "cases.json").read_text())
    wanted = [case for case in cases if case["quick"] or not plan.quick]
    return [case for case in wanted if plan.only in case["id"]]


def run_all(plan: Plan, script: Path) -> dict[str, Any]:
    """Runs every case and returns the report, which `plan.json` holds at every moment."""
    begun = time.monotonic()
    log = plan.json.with_suffix(".log")
    worker = Worker(_command(plan, script), log)
    report: dict[str, Any] = {"date": time.strftime("%Y-%m-%d %H:%M:%S %Z"), "cases": []}
    try:
        machine = worker.do({"do": "machine", "quick": plan.quick}, FIRST_SECONDS + 30)
        report["machine"] = machine.result or {"error": machine.error}
        _write(plan, report)
        report["prepared"] = _prepare(plan, script)
        for case in chosen(plan):
            spent = time.monotonic() - begun
            if spent > plan.limit:
                report["cases"].append({"id": case["id"], "error": "left out: time is up"})
                continue
            report["cases"].append(_one(plan, worker, case))
            report["seconds"] = round(time.monotonic() - begun, 1)
            _write(plan, report)
    finally:
        worker.stop()
    report["lost peers"] = plan.lost
    _write(plan, report)
    return report


def _command(plan: Plan, script: Path) -> list[str]:
    simulated = ["--sim"] if plan.simulated else []
    return [sys.executable, str(script), "--worker", str(plan.folder), *simulated]


def _prepare(plan: Plan, script: Path) -> dict[str, str]:
    """Lets peers that compile do so, several at once, before anything is timed."""
    jobs = json.loads((plan.folder / "prepare.json").read_text())
    jobs = [job for job in jobs if job["quick"] or not plan.quick]
    jobs = [job for job in jobs if plan.peers or job["do"] != "warm"]
    command, logs = _command(plan, script), plan.json.with_suffix
    workers = [Worker(command, logs(f".{i}.log")) for i in range(len(jobs))]
    with ThreadPoolExecutor(max(1, len(jobs))) as pool:
        work = zip(workers, jobs, strict=True)
        outcomes = [*pool.map(lambda pair: pair[0].do(pair[1], job_seconds(plan)), work)]
    for worker in workers:
        worker.stop()
    return {
        job["id"]: one.error or str(one.result) for job, one in zip(jobs, outcomes, strict=True)
    }


def job_seconds(plan: Plan) -> float:
    """The time limit of a peer's preparation."""
    return 45.0 if plan.quick else 90.0


def _one(plan: Plan, worker: Worker, case: dict[str, Any]) -> dict[str, Any]:
    """The row of a case; when a peer or a kernel kills it, once more without that one."""
    begun = time.monotonic()
    outcome, broken = Outcome(error="not run"), dict[str, str]()
    for _ in range(len(case["kernels"]) + 3):
        job = {"do": "case", "case": case, "quick": plan.quick, "peers": plan.peers}
        job["without"] = sorted(plan.lost)
        outcome = worker.do(job, case.get("seconds", 30.0) + FIRST_SECONDS)
        what, _, culprit = outcome.at.partition(" ")
        if not outcome.error or what not in ("peer", "kernel"):
            break
        if what == "peer":
            plan.lost[culprit] = f"{case['id']}: {outcome.error}"
            continue
        broken[culprit] = outcome.error
        left = {name: key for name, key in case["kernels"].items() if name != culprit}
        if not left:
            break
        case = case | {"kernels": left}
    row = {"id": case["id"], **(outcome.result or {})}
    if outcome.error:
        row |= {"error": outcome.error, "at": outcome.at}
    if broken:
        row |= {"broken": broken, "right": False}
    row["seconds"] = round(time.monotonic() - begun, 1)
    for line in render([row]):
        print(line, flush=True)  # noqa: T201
    return row


def _write(plan: Plan, report: dict[str, Any]) -> None:
    part = plan.json.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1))
    part.replace(plan.json)


def failures(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Ids of cases in which our kernel failed or is wrong."""
    return [row["id"] for row in rows if "error" in row or not row.get("right", False)]
