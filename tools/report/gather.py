"""What is in a folder that `nybble report` can show: IR of stages, and reports of other verbs."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.dialects.screening import MAX_BYTES
from nybble.tools.mlir_file import STAGE_NAMES

EXPLAINED = ("prefill", "decode")
KERNELS, CIRCUITS = "kernels", "fpga"
"""Kinds of reports of `nybble bench` whose rows are shown."""
REPORTS = "`explain MODEL`, `bench kernels` or `bench fpga`"
MOST_SHOWN = 200_000
"""Characters of IR that the page holds for a stage."""


class ReportError(NybbleError):
    """A folder without anything to report on, or a file in it that is broken."""


@dataclass(frozen=True)
class Stage:
    """The IR after a stage. operations: name -> how many, the most frequent first."""

    name: str
    text: str
    module: ModuleOp
    operations: Mapping[str, int]

    @property
    def kernels(self) -> int:
        """Launches."""
        return self.operations.get(KernelOp.name, 0)

    @property
    def shown(self) -> str:
        """The text, cut where it is too long for a page."""
        if len(self.text) <= MOST_SHOWN:
            return self.text
        return self.text[:MOST_SHOWN] + f"\n... {len(self.text) - MOST_SHOWN:,} characters more"


@dataclass(frozen=True)
class Contents:
    """stages: in the order of compilation. explained: reports of `nybble explain MODEL`. benched:
    rows of `nybble bench kernels`. circuits: rows of `nybble bench fpga`. left_out: files that are
    none of these, and why.
    """

    folder: str
    stages: tuple[Stage, ...]
    explained: tuple[Mapping[str, Any], ...]
    benched: tuple[Mapping[str, Any], ...]
    circuits: tuple[Mapping[str, Any], ...]
    left_out: tuple[str, ...]


def gather(folder: Path) -> Contents:
    """What a folder holds; ReportError where there is nothing or a file is broken."""
    if not folder.is_dir():
        raise ReportError(f"{folder} is no directory", accepted="one of --dump-stages, or of JSON")
    stages = [_stage(folder, name) for name in STAGE_NAMES if (folder / f"{name}.mlir").is_file()]
    explained: list[Mapping[str, Any]] = []
    benched: dict[str, list[Mapping[str, Any]]] = {KERNELS: [], CIRCUITS: []}
    left_out: list[str] = []
    for path in sorted(folder.glob("*.json")):
        found = _read_json(path)
        if all(isinstance(found.get(key), dict) for key in EXPLAINED):
            explained.append(found)
        elif found.get("kind") in benched and isinstance(found.get("rows"), list):
            benched[found["kind"]] += found["rows"]
        else:
            left_out.append(f"{path.name}: no report of {REPORTS}")
    if not stages and not explained and not any(benched.values()):
        raise ReportError(
            f"{folder} holds nothing to report on",
            accepted=f"STAGE.mlir of --dump-stages, JSON of {REPORTS}",
        )
    return Contents(
        folder.name,
        tuple(stages),
        tuple(explained),
        tuple(benched[KERNELS]),
        tuple(benched[CIRCUITS]),
        tuple(left_out),
    )


def _stage(folder: Path, name: str) -> Stage:
    path = folder / f"{name}.mlir"
    text = _read(path).decode(errors="replace")
    module = parse_module(make_context(allow_unregistered=True), text, path.name)
    counted = Counter(op.name for op in module.walk())
    return Stage(name, text, module, dict(counted.most_common()))


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(_read(path))
    except ValueError as error:
        raise ReportError(f"{path} is no JSON: {error}", accepted="a report of --json") from None
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ReportError(f"{path} has {size} bytes", accepted=f"up to {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise ReportError(f"cannot read {path}: {error.strerror}") from error
