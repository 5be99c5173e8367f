"""What a child process does with a job: a case, a probe of the machine, a preparation."""

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from gpu_parts import peers
from gpu_parts.decoding import TOLERANCES, DecodeCase
from gpu_parts.machine import Machine, gpu, simulator
from gpu_parts.prefilling import PrefillCase
from gpu_parts.products import TOLERANCE, ProductCase, packed
from gpu_parts.timing import Contender, describe, measure, probe_bandwidth
from gpu_parts.workers import FATAL

Say = Callable[[str], None]


@cache
def _ceilings() -> dict[str, float]:
    return probe_bandwidth()


def handle(folder: Path, job: dict[str, Any], say: Say, *, simulated: bool = False) -> Any:
    """The result of a job; raises whatever goes wrong."""
    if job["do"] == "machine":
        if simulated:
            return {"name": "simulator"}
        return describe() | _ceilings()
    if job["do"] == "pack":
        return f"{packed(folder, job['key'], job['spec']).nbytes} bytes"
    if job["do"] == "warm":
        return peers.warm(job["spec"], job["tokens"])
    return run_case(folder, job, say, simulator() if simulated else gpu())


def run_case(folder: Path, job: dict[str, Any], say: Say, machine: Machine) -> dict[str, Any]:
    """Checks and times our kernels and the peers of a case."""
    case = job["case"]
    say("data")
    kinds = {"product": ProductCase, "decode": DecodeCase, "prefill": PrefillCase}
    one = kinds[case["kind"]](folder, case, machine)
    tolerance = TOLERANCES.get(case["spec"].get("cache", ""), TOLERANCE)
    rows: list[dict[str, Any]] = []
    good: list[Contender] = []
    for variant, make in one.ours():
        say(f"kernel {variant}")
        _admit(f"nybble {variant}".strip(), make, one, tolerance, good, rows)
    skipped: dict[str, str] = {}
    for name, make in one.peers() if job["peers"] else ():
        if name in job["without"]:
            skipped[name] = "lost before"
            continue
        say(f"peer {name}")
        _admit(name, make, one, None, good, rows)
    if good and machine.device == "cuda":
        say("timing")
        _time(good, rows, 8 if job["quick"] else 14)
    mine = [row for row in rows if row["name"].startswith("nybble")]
    return {
        "kind": case["kind"],
        "spec": case["spec"],
        "contenders": rows,
        "skipped": skipped,
        "right": bool(mine) and all(row.get("right", False) for row in mine),
    }


def _admit(
    name: str,
    make: Callable[[], Contender],
    case: Any,
    tolerance: float | None,
    good: list[Contender],
    rows: list[dict[str, Any]],
) -> None:
    """Makes a contender, runs it on each copy of its data, and judges its last result."""
    try:
        contender = make()
        worst = 0.0
        assert contender.result is not None
        for copy in (0, contender.copies - 1):
            if tolerance is not None:
                contender.result().fill_(float("nan"))
            contender.run(copy)
            case.machine.wait()
            error = case.nmse(contender.result())
            worst = error if not error <= worst else worst
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if any(word in text for word in FATAL):
            raise
        rows.append({"name": name, "error": text.splitlines()[0][:300], "right": False})
        return
    row: dict[str, Any] = {"name": name, "nmse": worst, "bytes": contender.bytes}
    if tolerance is not None:
        row["right"] = worst <= tolerance
    rows.append(row | contender.facts)
    good.append(contender)


def _time(good: list[Contender], rows: list[dict[str, Any]], rounds: int) -> None:
    ceilings = _ceilings()
    by_name = {row["name"]: row for row in rows}
    for name, times in measure(good, rounds).items():
        one = next(contender for contender in good if contender.name == name)
        floors = (
            one.bytes / ceilings["copy_gb_s"] / 1e3,
            one.flops / ceilings["matmul_f16_tflop_s"] / 1e6,
        )
        row = by_name[name]
        row |= asdict(times) | {"floor": max(floors)}
        row["gb_s"] = one.bytes / times.best / 1e3
        row["tflops"] = one.flops / times.best / 1e6
