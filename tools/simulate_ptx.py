"""Runs a kernel of a PTX file in the simulator and describes what came of it."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nybble.backends.gpu.sim.parser import parse
from nybble.backends.gpu.sim.report import Report
from nybble.backends.gpu.sim.simulate import Launch, Options, simulate
from nybble.dialects.errors import NybbleError
from nybble.tools.diagnostics import Session, UsageError
from nybble.tools.ptx_arguments import Spelt, parse_argument

SUFFIX = ".ptx"
_SHOWN = 6


@dataclass(frozen=True)
class PtxRun:
    """What to run. entry: None for the only kernel. arguments: as spelt. save: a folder for what
    buffers hold afterwards, as .npy files."""

    entry: str | None
    arguments: tuple[str, ...]
    launch: Launch
    seed: int
    save: str | None = None


@dataclass(frozen=True)
class PtxResult:
    """report, and each argument beside the name of its parameter."""

    report: Report
    arguments: list[tuple[str, Spelt]]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Everything but the arrays."""
        buffers = {
            name: _summary(spelt) for name, spelt in self.arguments if spelt.array is not None
        }
        return {
            **self.report.as_json(), "buffers": buffers, "seconds": self.seconds,
            "agrees": not self.report.findings,
        }  # fmt: skip

    def text(self, *, details: bool) -> str:
        """Lines for people; with details, the whole report."""
        lines = [
            f"{name}: {spelt.text}: {_described(spelt)}"
            for name, spelt in self.arguments
            if spelt.array is not None
        ]
        if details:
            return "\n".join([*lines, self.report.text().rstrip("\n")])
        lines += [str(one) for one in self.report.findings]
        return "\n".join([*lines, f"findings: {len(self.report.findings)}"])


def run_ptx(path: str, run: PtxRun, session: Session) -> PtxResult:
    """Run a kernel of a file; raises NybbleError for what does not fit, with its place."""
    try:
        text = Path(path).read_text()
    except UnicodeDecodeError:
        raise NybbleError(f"{path} is not text", accepted="PTX") from None
    session.sources[path] = text
    module = parse(text, path)
    entry = module.entry(run.entry)
    random = np.random.default_rng(run.seed)
    spelt = [parse_argument(one, random) for one in run.arguments]
    names = [one.name for one in entry.parameters]
    if len(names) != len(spelt):
        raise UsageError(
            f"kernel '{entry.name}' has {len(names)} parameters, {len(spelt)} arguments were given",
            accepted=", ".join(f".{one.type} {one.name}" for one in entry.parameters) or "none",
        )
    start = time.perf_counter()
    values = [one.value for one in spelt]
    options = Options(strict=False)
    report = simulate(module, values, run.launch, entry=entry.name, options=options)
    seconds = time.perf_counter() - start
    named = list(zip(names, spelt, strict=True))
    if run.save is not None:
        _save(Path(run.save), named)
    return PtxResult(report, named, seconds)


def _save(folder: Path, named: list[tuple[str, Spelt]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, spelt in named:
        if spelt.array is not None:
            np.save(folder / f"{name}.npy", spelt.array)


def _summary(spelt: Spelt) -> dict[str, Any]:
    values = spelt.values()
    first = values.reshape(-1)[:_SHOWN].tolist()
    if not values.size:
        return {"shape": list(values.shape), "first": first}
    with np.errstate(all="ignore"):
        wide = values.astype(np.float64)
        mean = float(wide.mean())
    return {"shape": list(values.shape), "first": first, "mean": mean}


def _described(spelt: Spelt) -> str:
    first = spelt.values().reshape(-1)[:_SHOWN]
    more = " .." if spelt.values().size > _SHOWN else ""
    return " ".join(f"{one:.6g}" for one in first.tolist()) + more
